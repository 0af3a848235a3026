"""Keeping a room in order, through matrix-nio: power, what it allows, and whom a knock lets in."""

import nio

from person import ok, refused


async def moderated(alice, bob, carol):
    """A public room of alice's in which bob is a moderator and carol is not."""
    levels = {"users": {bob.id: 50}}
    created = await alice.client.room_create(preset=nio.RoomPreset.public_chat, power_level_override=levels)
    room_id = ok(created).room_id
    await bob.joins(room_id)
    await carol.joins(room_id)
    return room_id


async def test_a_moderator_rules_over_those_with_less_power(arrive):
    alice, bob, carol = [await arrive(name) for name in ("alice", "bob", "carol")]
    room_id = await moderated(alice, bob, carol)
    refused(await carol.client.room_kick(room_id, bob.id), "M_FORBIDDEN")
    refused(await bob.client.room_kick(room_id, alice.id), "M_FORBIDDEN")
    refused(await carol.client.room_ban(room_id, bob.id), "M_FORBIDDEN")
    ok(await bob.client.room_kick(room_id, carol.id, "too loud"))
    await carol.until("the kick", lambda: room_id in carol.left)

    await carol.joins(room_id)
    ok(await bob.client.room_ban(room_id, carol.id, "burnt the rug"))
    await carol.until("the ban", lambda: room_id in carol.left)
    refused(await alice.client.room_invite(room_id, carol.id), "M_FORBIDDEN")
    refused(await carol.client.room_send(room_id, "m.room.message", {"msgtype": "m.text", "body": "?"}), "M_FORBIDDEN")
    ok(await bob.client.room_unban(room_id, carol.id))
    ok(await carol.client.join(room_id))
    await bob.hears(room_id, await carol.say(room_id, "sorry about the rug"))


async def test_a_moderator_takes_down_what_others_said(arrive):
    alice, bob, carol = [await arrive(name) for name in ("alice", "bob", "carol")]
    room_id = await moderated(alice, bob, carol)
    rude, kind = await carol.say(room_id, "something rude"), await alice.say(room_id, "something kind")
    refused(await carol.client.room_redact(room_id, kind), "M_FORBIDDEN")
    redaction = ok(await bob.client.room_redact(room_id, rude, reason="manners")).event_id
    heard = await alice.hears(room_id, redaction)
    assert (heard.redacts, heard.reason, heard.sender) == (rude, "manners", bob.id)
    event = ok(await alice.client.room_get_event(room_id, rude)).event
    assert isinstance(event, nio.RedactedEvent)
    assert (event.redacter, event.reason) == (bob.id, "manners")


async def test_power_is_given_and_taken(arrive):
    alice, bob, carol = [await arrive(name) for name in ("alice", "bob", "carol")]
    room_id = await moderated(alice, bob, carol)
    levels = ok(await alice.client.room_get_state_event(room_id, "m.room.power_levels")).content

    def power():
        return carol.room(room_id).power_levels.users.get(carol.id, 0)

    async def set_power(person, users):
        return await person.client.room_put_state(room_id, "m.room.power_levels", {**levels, "users": users})

    refused(await set_power(carol, {bob.id: 50, carol.id: 100}), "M_FORBIDDEN")
    ok(await set_power(alice, {bob.id: 50, carol.id: 60}))
    await carol.until("the power", lambda: power() == 60)
    ok(await carol.client.room_kick(room_id, bob.id))
    await bob.until("the kick", lambda: room_id in bob.left)
    ok(await set_power(alice, {carol.id: 0}))
    await carol.until("it to be taken", lambda: power() == 0)
    refused(await carol.client.room_put_state(room_id, "m.room.name", {"name": "Mine"}), "M_FORBIDDEN")


async def test_a_knock_is_turned_away(two, arrive):
    alice, bob, room_id = two
    carol = await arrive("carol")
    refused(await carol.client.room_knock(room_id), "M_FORBIDDEN")
    ok(await alice.client.room_enable_knocking(room_id))
    ok(await carol.client.room_knock(room_id, "may I?"))

    def knock():
        events = alice.heard.get(room_id, [])
        return next((event for event in events if getattr(event, "membership", None) == "knock"), None)

    await carol.sync()
    heard = await alice.until("the knock", knock)
    assert (heard.state_key, heard.content["reason"]) == (carol.id, "may I?")
    refused(await carol.client.join(room_id), "M_FORBIDDEN")
    refused(await bob.client.room_kick(room_id, carol.id), "M_FORBIDDEN")
    ok(await alice.client.room_kick(room_id, carol.id, "members only"))
    await carol.until("the answer", lambda: room_id in carol.left)
    ok(await alice.client.room_ban(room_id, carol.id))
    refused(await carol.client.room_knock(room_id), "M_FORBIDDEN")
