"""matrix-commander, the command-line client, in a conversation with matrix-nio.

It always has its keys for encryption with it, but writes plainly in rooms that are not encrypted.
Rooms go by their aliases here: it takes an id without a server name, as rooms have since version 12,
only where it reads from a room.
"""

import json

import nio
import pytest

from commander import Commander
from person import BASE_URL, PASSWORD, fresh, ok, refused


@pytest.fixture
async def den(arrive, tmp_path):
    """Alice and bob in a room of hers, her command line, and the room's alias and id."""
    alice, bob = await arrive("alice"), await arrive("bob")
    localpart = fresh("den")
    created = await alice.client.room_create(alias=localpart, name="The den", topic="embers", invite=[bob.id])
    room_id = ok(created).room_id
    await bob.joins(room_id)
    alias = f"#{localpart}:{alice.id.split(':', 1)[1]}"
    return Commander.of(alice, tmp_path, alias), alice, bob, alias, room_id


async def test_logs_in_makes_a_room_and_logs_out(arrive, tmp_path):
    alice, bob = await arrive("alice"), await arrive("bob")
    localpart = fresh("den")
    alias = f"#{localpart}:{alice.id.split(':', 1)[1]}"
    login = ("--login", "password", "--homeserver", BASE_URL, "--user-login", alice.id, "--device", "by the window")
    login += ("--room-default", alias, "--password")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    assert "M_FORBIDDEN" in await Commander(stranger).fails(*login, "wrong")

    commander = Commander(tmp_path)
    create = ("--room-create", localpart, "--name", "The den", "--topic", "embers", "--plain")
    invite = ("--room-invite", alias, "--user", bob.id)
    created, joined = await commander.run(*login, PASSWORD, *create, *invite, "--joined-rooms")
    assert (created["alias_full"], created["encrypted"]) == (alias, False)
    assert joined["rooms"] == [created["room_id"]]
    await bob.until("the invite", lambda: created["room_id"] in bob.client.invited_rooms)
    await bob.joins(created["room_id"])
    room = bob.room(created["room_id"])
    assert (room.name, room.topic, room.encrypted) == ("The den", "embers", False)
    assert "by the window" in {device.display_name for device in ok(await alice.client.devices()).devices}

    [sent] = await commander.run("-m", "is it warm in there?", "--print-event-id", "--logout", "me")
    assert (await bob.hears(created["room_id"], sent["event_id"])).body == "is it warm in there?"
    assert "M_UNKNOWN_TOKEN" in await commander.fails("--joined-rooms")


async def test_sends_texts_of_each_kind(den):
    commander, _, bob, _, room_id = den
    one, two = await commander.run("-m", "one", "two", "--print-event-id")
    assert (await bob.hears(room_id, one["event_id"])).body == "one"
    assert (await bob.hears(room_id, two["event_id"])).body == "two"
    [sent] = await commander.run("-m", "-", "--notice", "--markdown", "--print-event-id", stdin="so **warm**")
    heard = await bob.hears(room_id, sent["event_id"])
    assert isinstance(heard, nio.RoomMessageNotice)
    assert (heard.body, heard.formatted_body) == ("so **warm**", "<p>so <strong>warm</strong></p>")


async def test_replies_edits_reacts_and_goes_on_in_a_thread(den, tmp_path):
    commander, alice, bob, _, room_id = den
    asked = await bob.say(room_id, "who brings wood?")
    mine = await alice.say(room_id, "mee")
    text = {"msgtype": "m.text", "body": "me"}
    contents = {
        "reply": {**text, "m.relates_to": {"m.in_reply_to": {"event_id": asked}}},
        "thread": {**text, "m.relates_to": {"rel_type": "m.thread", "event_id": asked}},
        "edit": {**text, "m.new_content": text, "m.relates_to": {"rel_type": "m.replace", "event_id": mine}},
        "reaction": {"m.relates_to": {"rel_type": "m.annotation", "event_id": asked, "key": "🔥"}},
    }
    files = []
    for name, content in contents.items():
        kind = "m.reaction" if name == "reaction" else "m.room.message"
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({"type": kind, "content": content}))
    printed = await commander.run("--event", *files, "--print-event-id")
    sent = dict(zip(contents, [one["event_id"] for one in printed], strict=True))

    heard = await bob.hears(room_id, sent["reaction"])
    assert (heard.key, heard.reacts_to, heard.sender) == ("🔥", asked, alice.id)
    reply = await bob.hears(room_id, sent["reply"])
    assert reply.source["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == asked
    question = ok(await bob.client.room_get_event(room_id, asked)).event
    thread = question.source["unsigned"]["m.relations"]["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (1, sent["thread"])
    answer = ok(await bob.client.room_get_event(room_id, mine)).event
    assert answer.source["unsigned"]["m.relations"]["m.replace"]["event_id"] == sent["edit"]


async def test_reads_what_is_new_and_what_was_said_last(den):
    commander, alice, bob, _, room_id = den
    first = await bob.say(room_id, "are you there?")
    listen = ("--listen", "once", "--output", "json-spec")
    assert [heard["event_id"] for heard in await commander.run(*listen)] == [first]
    second = await bob.say(room_id, "hello?")
    [heard] = await commander.run(*listen)
    assert (heard["event_id"], heard["content"]["body"]) == (second, "hello?")

    tail = await commander.run("--room", room_id, "--tail", "2", "--output", "json-spec")
    assert [heard["event_id"] for heard in tail] == [second, first]

    def receipt():
        return bob.room(room_id).read_receipts.get(alice.id)

    assert (await bob.until("the receipt", receipt)).event_id == second


async def test_keeps_a_room_in_order(den):
    commander, alice, bob, alias, room_id = den
    rude = await bob.say(room_id, "something rude")
    await commander.run("--room-redact", alias, rude, "manners", "--room-kick", alias, "--user", bob.id)
    await bob.until("the kick", lambda: room_id in bob.left)
    taken_down = ok(await alice.client.room_get_event(room_id, rude)).event
    assert (taken_down.redacter, taken_down.reason) == (alice.id, "manners")

    ok(await alice.client.room_invite(room_id, bob.id))
    await bob.joins(room_id)
    await commander.run("--room-ban", alias, "--user", bob.id)
    await bob.until("the ban", lambda: room_id in bob.left)
    refused(await alice.client.room_invite(room_id, bob.id), "M_FORBIDDEN")
    await commander.run("--room-unban", alias, "--user", bob.id)
    ok(await alice.client.room_invite(room_id, bob.id))
    await bob.joins(room_id)


async def test_is_refused_where_it_has_no_power(den):
    commander, alice, bob, _, _ = den
    localpart = fresh("burrow")
    public = nio.RoomPreset.public_chat
    burrow = ok(await bob.client.room_create(alias=localpart, preset=public)).room_id
    alias = f"#{localpart}:{bob.id.split(':', 1)[1]}"
    kind = await bob.say(burrow, "something kind")
    against = ("--room-kick", alias, "--room-ban", alias, "--user", bob.id, "--room-redact", alias, kind)
    complaints = await commander.fails("--room-join", alias, *against)
    assert complaints.count("M_FORBIDDEN") == 3
    members = ok(await bob.client.joined_members(burrow)).members
    assert {member.user_id for member in members} == {alice.id, bob.id}
    assert ok(await bob.client.room_get_event(burrow, kind)).event.body == "something kind"


async def test_tells_of_rooms_and_people_and_changes_them(den):
    commander, alice, bob, alias, room_id = den
    other = alias.replace(":", "-two:", 1)
    topic = "__homeserver__/_matrix/client/v3/rooms/__room_id__/state/m.room.topic?access_token=__access_token__"
    change = ("--room-set-alias", other, alias, "--set-display-name", "Alice of the hearth")
    change += ("--rest", "PUT", json.dumps({"topic": "ashes"}), topic)
    ask = ("--room-resolve-alias", other, "--room-get-visibility", alias, "--room-get-state", alias)
    ask += ("--get-display-name", "--get-profile", alice.id, "--joined-members", room_id, "--get-room-info", alias)
    visibility, state, resolved, put, name, members, profile, room = await commander.run(*change, *ask)
    assert (resolved["room_id"], visibility["visibility"]) == (room_id, "private")
    assert {"m.room.create", "m.room.member"} <= {one["type"] for one in state["events"]}
    assert json.loads(put["response"])["event_id"].startswith("$")
    assert name["displayname"] == profile["displayname"] == "Alice of the hearth"
    assert {member["user_id"] for member in members["members"]} == {alice.id, bob.id}
    assert (room["name"], room["topic"], room["canonical_alias"]) == ("The den", "ashes", alias)

    await bob.until("the topic", lambda: bob.room(room_id).topic == "ashes")
    await bob.until("the name", lambda: bob.room(room_id).users[alice.id].display_name == "Alice of the hearth")
    complaints = await commander.fails("--room-delete-alias", other, "--room-resolve-alias", other)
    assert "M_NOT_FOUND" in complaints


async def test_takes_an_invitation_and_leaves_again(den):
    commander, alice, bob, _, room_id = den
    localpart = fresh("burrow")
    burrow = ok(await bob.client.room_create(alias=localpart, invite=[alice.id])).room_id
    alias = f"#{localpart}:{bob.id.split(':', 1)[1]}"
    [invite] = await commander.run("--room-invites", "list+join")
    assert (invite["room_id"], invite["membership"]) == (burrow, "invite")
    await bob.until("alice to join", lambda: alice.id in getattr(bob.client.rooms.get(burrow), "users", ()))

    direct = ("--room-dm-create", bob.id, "--room-dm-create-allow-duplicates", "--plain")
    created, joined = await commander.run("--room-leave", alias, "--room-forget", alias, *direct, "--joined-rooms")
    assert set(joined["rooms"]) == {room_id, created["room_id"]}
    await bob.until("alice to leave", lambda: alice.id not in bob.room(burrow).users)
    await bob.until("the invite", lambda: created["room_id"] in bob.client.invited_rooms)


async def test_searches(den):
    commander, _, bob, _, room_id = den
    word = fresh("ember").replace("-", "")
    said = [await bob.say(room_id, f"{word} {number}") for number in range(2)]
    await bob.say(room_id, "something else")
    url = "__homeserver__/_matrix/client/v3/search?access_token=__access_token__"
    question = {"search_categories": {"room_events": {"search_term": word, "order_by": "recent"}}}
    [answer] = await commander.run("--rest", "POST", json.dumps(question), url)
    found = json.loads(answer["response"])["search_categories"]["room_events"]
    assert [one["result"]["event_id"] for one in found["results"]] == said[::-1]
