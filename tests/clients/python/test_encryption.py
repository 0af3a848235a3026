"""End-to-end encryption through matrix-nio: every message decrypts for whom it should, and for nobody else."""

import nio
import pytest
from nio.crypto.attachments import decrypt_attachment

from encrypted import EncryptedPerson, encrypted_room
from person import ok
from pictures import photograph, upload
from sdk_peer import SdkPeer

# More than the answer to one sync has room for.
MANY_KEYS = 110


@pytest.fixture
async def arrive():
    """Makes people whose clients encrypt, and their further devices."""
    people = []

    async def arrive(name, like=None):
        arriving = EncryptedPerson.on_new_device(like.username) if like else EncryptedPerson.arrive(name)
        people.append(await arriving)
        return people[-1]

    yield arrive
    for person in people:
        await person.client.close()


@pytest.fixture
async def peer():
    """Somebody with another kind of client."""
    peer = await SdkPeer.arrive("jan")
    yield peer
    await peer.leave()


async def test_texts_go_both_ways_and_the_server_sees_none_of_it(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    room_id = await encrypted_room(alice, bob)
    for speaker, listener, text in [
        (alice, bob, "can anybody hear us?"),
        (bob, alice, "nobody but you 🔒"),
        (alice, bob, "then listen"),
    ]:
        event_id = await speaker.say(room_id, text)
        heard = await listener.hears(room_id, event_id)
        assert isinstance(heard, nio.RoomMessageText), f"{heard} could not be decrypted"
        assert (heard.body, heard.sender, heard.decrypted) == (text, speaker.id, True)
        assert text not in str((await listener.wire(room_id, event_id)).source)


async def test_a_picture_is_kept_by_a_server_that_can_not_look_at_it(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    room_id = await encrypted_room(alice, bob)
    data = photograph(640, 480)
    mxc, keys = await upload(alice, data, filename="embers.jpg", encrypt=True, filesize=len(data))
    info = {"mimetype": "image/jpeg", "w": 640, "h": 480}
    content = {"msgtype": "m.image", "body": "embers.jpg", "info": info, "file": {"url": mxc, **keys}}
    sent = ok(await alice.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)).event_id
    heard = await bob.hears(room_id, sent)
    assert isinstance(heard, nio.RoomEncryptedImage), f"{heard} could not be decrypted"

    kept = ok(await bob.client.download(mxc=heard.url))
    assert (kept.content_type, len(kept.body)) == ("application/octet-stream", len(data))
    assert kept.body != data
    assert decrypt_attachment(kept.body, heard.key["k"], heard.hashes["sha256"], heard.iv) == data


async def test_who_is_not_in_the_room_reads_nothing(arrive):
    alice, bob, eve = await arrive("alice"), await arrive("bob"), await arrive("eve")
    room_id = await encrypted_room(alice, bob)
    wire = await alice.wire(room_id, await alice.say(room_id, "a secret"))
    assert await bob.reads(wire) == "a secret"
    await eve.catches_up()
    assert eve.opens(wire) is None


async def test_a_device_that_was_away_reads_all_that_was_said(arrive):
    """The key changes with each message, more often than one sync can tell of."""
    alice, bob = await arrive("alice"), await arrive("bob")
    room_id = await encrypted_room(alice, bob)
    said = []
    for number in range(MANY_KEYS):
        alice.client.invalidate_outbound_session(room_id)
        event_id = await alice.say(room_id, f"whisper {number}")
        said.append((f"whisper {number}", await alice.wire(room_id, event_id)))
    assert len({wire.session_id for _, wire in said}) == MANY_KEYS
    for text, wire in said:
        assert await bob.reads(wire) == text


async def test_a_device_reads_from_its_arrival_to_its_end(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    room_id = await encrypted_room(alice, bob)
    before = await alice.wire(room_id, await alice.say(room_id, "before"))

    second = await arrive("bob", like=bob)
    await alice.meets(second)
    between = await alice.wire(room_id, await alice.say(room_id, "between"))
    await second.until("the room", lambda: room_id in second.client.rooms)
    assert await second.reads(between) == "between"

    ok(await second.client.logout())
    await alice.until("the end of the device", lambda: not alice.knows(second))
    after = await alice.wire(room_id, await alice.say(room_id, "after"))
    for text, wire in [("before", before), ("between", between), ("after", after)]:
        assert await bob.reads(wire) == text
    assert [second.opens(wire) for wire in (before, after)] == [None, None]


async def test_a_member_reads_from_joining_to_leaving(arrive):
    alice, bob, carol = await arrive("alice"), await arrive("bob"), await arrive("carol")
    room_id = await encrypted_room(alice, bob, preset=nio.RoomPreset.public_chat)
    before = await alice.wire(room_id, await alice.say(room_id, "before"))

    await carol.joins(room_id)
    await alice.until("carol to join", lambda: carol.id in alice.room(room_id).users)
    await alice.meets(carol)
    between = await alice.wire(room_id, await alice.say(room_id, "between"))
    assert await carol.reads(between) == "between"
    await carol.meets(alice, bob)
    hello = await alice.wire(room_id, await carol.say(room_id, "hello, all of you"))
    for listener in (alice, bob):
        assert await listener.reads(hello) == "hello, all of you"

    ok(await carol.client.room_leave(room_id))
    await alice.until("carol to leave", lambda: carol.id not in alice.room(room_id).users)
    after = await alice.wire(room_id, await alice.say(room_id, "after"))
    for text, wire in [("before", before), ("between", between), ("after", after)]:
        assert await bob.reads(wire) == text
    await carol.catches_up()
    assert [carol.opens(wire) for wire in (before, after)] == [None, None]


async def test_two_people_verify_their_devices_by_emoji(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    await encrypted_room(alice, bob)
    hers = alice.client.device_store[bob.id][bob.device]
    his = bob.client.device_store[alice.id][alice.device]
    ok(await alice.client.start_key_verification(hers))
    sas = alice.client.get_active_sas(bob.id, bob.device)
    await bob.until("the start", lambda: sas.transaction_id in bob.client.key_verifications)
    ok(await bob.client.accept_key_verification(sas.transaction_id))
    await alice.until("the acceptance", lambda: sas.chosen_key_agreement)
    theirs = bob.client.key_verifications[sas.transaction_id]
    await bob.until("alice's key", lambda: theirs.established_sas)
    await alice.until("bob's key", lambda: sas.established_sas)
    assert sas.get_emoji() == theirs.get_emoji()

    ok(await alice.client.confirm_short_auth_string(sas.transaction_id))
    ok(await bob.client.confirm_short_auth_string(sas.transaction_id))
    await alice.until("bob's device to be verified", lambda: hers.verified)
    await bob.until("alice's device to be verified", lambda: his.verified)


async def test_different_clients_understand_each_other(arrive, peer):
    alice = await arrive("alice")
    encryption = nio.EnableEncryptionBuilder().as_dict()
    room_id = ok(await alice.client.room_create(initial_state=[encryption], invite=[peer.id])).room_id
    await peer.asks("join", room=room_id)
    await alice.until("the other to join", lambda: peer.id in getattr(alice.client.rooms.get(room_id), "users", ()))
    await alice.meets(peer)

    said = await alice.say(room_id, "which SDK are you?")
    assert (await peer.asks("read", room=room_id, event=said))["text"] == "which SDK are you?"
    await peer.asks("meet", user=alice.id, device=alice.device)
    told = (await peer.asks("say", room=room_id, text="does it matter? 🤝"))["id"]
    heard = await alice.hears(room_id, told)
    assert isinstance(heard, nio.RoomMessageText), f"{heard} could not be decrypted"
    assert (heard.body, heard.sender) == ("does it matter? 🤝", peer.id)
