"""A room through matrix-nio: messages, ephemeral news, state, and who may be in it."""

import nio

from person import fresh, ok, refused


async def test_texts_go_both_ways(two):
    alice, bob, room_id = two
    asked = await alice.say(room_id, "is it warm in there?")
    assert (await bob.hears(room_id, asked)).body == "is it warm in there?"
    told = await bob.say(room_id, "come and see 🔥")
    heard = await alice.hears(room_id, told)
    assert (heard.body, heard.sender) == ("come and see 🔥", bob.id)
    order = [event.event_id for event in alice.heard[room_id] if isinstance(event, nio.RoomMessageText)]
    assert order == [asked, told]


async def test_the_same_transaction_is_sent_once(two):
    alice, bob, room_id = two
    content = {"msgtype": "m.notice", "body": "once"}
    first = ok(await alice.client.room_send(room_id, "m.room.message", content, tx_id="only"))
    second = ok(await alice.client.room_send(room_id, "m.room.message", content, tx_id="only"))
    assert first.event_id == second.event_id
    await bob.hears(room_id, await alice.say(room_id, "done"))
    assert [event.event_id for event in bob.heard[room_id]].count(first.event_id) == 1


async def test_typing_is_seen_and_its_end(two):
    alice, bob, room_id = two
    ok(await alice.client.room_typing(room_id, True))
    await bob.until("alice typing", lambda: bob.room(room_id).typing_users == [alice.id])
    ok(await alice.client.room_typing(room_id, False))
    await bob.until("alice to stop typing", lambda: bob.room(room_id).typing_users == [])


async def test_receipts_and_the_read_marker(two):
    alice, bob, room_id = two
    message = await alice.say(room_id, "have you read this?")
    await bob.hears(room_id, message)
    ok(await bob.client.update_receipt_marker(room_id, message))

    def receipt():
        return alice.room(room_id).threaded_read_receipts.get(bob.id, {}).get("main")

    seen = await alice.until("the receipt", receipt)
    assert seen.event_id == message
    ok(await bob.client.room_read_markers(room_id, message, message))
    await bob.until("the marker", lambda: bob.room(room_id).fully_read_marker == message)


async def test_unread_messages_are_counted_until_they_are_read(two):
    alice, bob, room_id = two
    await alice.say(room_id, "one")
    last = await alice.say(room_id, "two")
    await bob.until("two unread", lambda: bob.room(room_id).unread_notifications == 2)
    ok(await bob.client.update_receipt_marker(room_id, last))
    await bob.until("nothing unread", lambda: bob.room(room_id).unread_notifications == 0)


async def test_a_redacted_message_loses_its_text(two):
    alice, bob, room_id = two
    message = await alice.say(room_id, "I never said that")
    await bob.hears(room_id, message)
    redaction = ok(await alice.client.room_redact(room_id, message, reason="regret")).event_id
    heard = await bob.hears(room_id, redaction)
    assert (heard.redacts, heard.reason) == (message, "regret")
    event = ok(await bob.client.room_get_event(room_id, message)).event
    assert isinstance(event, nio.RedactedEvent)
    assert event.redacter == alice.id


async def test_state(two):
    alice, bob, room_id = two
    room = bob.room(room_id)
    assert (room.name, room.topic, room.join_rule) == ("The hearth", "embers", "invite")
    ok(await alice.client.room_put_state(room_id, "m.room.topic", {"topic": "ashes"}))
    await bob.until("the topic", lambda: room.topic == "ashes")
    assert ok(await bob.client.room_get_state_event(room_id, "m.room.topic")).content["topic"] == "ashes"
    events = ok(await bob.client.room_get_state(room_id)).events
    state = {(event["type"], event["state_key"]) for event in events}
    assert {("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", bob.id)} <= state
    refused(await bob.client.room_put_state(room_id, "m.room.topic", {"topic": "mine"}), "M_FORBIDDEN")
    members = ok(await bob.client.joined_members(room_id)).members
    assert {member.user_id for member in members} == {alice.id, bob.id}
    assert room_id in ok(await bob.client.joined_rooms()).rooms


async def test_kick_ban_and_unban(two):
    alice, bob, room_id = two
    ok(await alice.client.room_kick(room_id, bob.id, "cool down"))
    await bob.until("the kick", lambda: room_id in bob.left)
    refused(await bob.client.join(room_id), "M_FORBIDDEN")

    ok(await alice.client.room_invite(room_id, bob.id))
    await bob.joins(room_id)
    ok(await alice.client.room_ban(room_id, bob.id, "burnt the rug"))
    await bob.until("the ban", lambda: room_id in bob.left)
    refused(await bob.client.join(room_id), "M_FORBIDDEN", "M_BAD_STATE")

    ok(await alice.client.room_unban(room_id, bob.id))
    ok(await alice.client.room_invite(room_id, bob.id))
    await bob.joins(room_id)
    message = await bob.say(room_id, "sorry about the rug")
    await alice.hears(room_id, message)


async def test_an_invite_is_refused(two, arrive):
    alice, _, room_id = two
    carol = await arrive("carol")
    ok(await alice.client.room_invite(room_id, carol.id))
    invite = await carol.until("the invite", lambda: carol.client.invited_rooms.get(room_id))
    assert (invite.name, invite.inviter) == ("The hearth", alice.id)
    ok(await carol.client.room_leave(room_id))
    await carol.until("the invite to go", lambda: room_id in carol.left)


async def test_an_alias_leads_into_a_public_room(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    localpart = fresh("square")
    created = await alice.client.room_create(alias=localpart, preset=nio.RoomPreset.public_chat)
    room_id = ok(created).room_id
    alias = f"#{localpart}:{alice.id.split(':', 1)[1]}"
    assert ok(await bob.client.room_resolve_alias(alias)).room_id == room_id
    assert ok(await bob.client.join(alias)).room_id == room_id
    ok(await alice.client.room_put_alias(f"{alias.split(':')[0]}-two:{alias.split(':', 1)[1]}", room_id))
    ok(await alice.client.room_delete_alias(alias))
    refused(await bob.client.room_resolve_alias(alias), "M_NOT_FOUND")


async def test_a_knock_is_answered_with_an_invite(two, arrive):
    alice, _, room_id = two
    carol = await arrive("carol")
    ok(await alice.client.room_enable_knocking(room_id))
    ok(await carol.client.room_knock(room_id, "may I?"))
    ok(await alice.client.room_invite(room_id, carol.id))
    await carol.joins(room_id)


async def test_leave_and_forget(two):
    alice, bob, room_id = two
    ok(await bob.client.room_leave(room_id))
    await bob.until("the way out", lambda: room_id in bob.left)
    await alice.until("bob to leave", lambda: bob.id not in alice.room(room_id).users)
    ok(await bob.client.room_forget(room_id))
    refused(await bob.client.room_get_state(room_id), "M_FORBIDDEN")


async def test_an_upgraded_room_points_to_its_successor(two):
    alice, bob, room_id = two
    version = alice.room(room_id).room_version
    new_room = ok(await alice.client.room_upgrade(room_id, version)).room_id
    await bob.until("the tombstone", lambda: bob.room(room_id).replacement_room == new_room)
