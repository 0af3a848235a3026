"""What relates to a message, through matrix-nio: edits, reactions and threads."""

import nio
from nio.api import MessageDirection, RelationshipType, ThreadInclusion

from person import ok, refused, texts


async def related(person, room_id, parent, *kind, **more):
    """What relates to an event, from all pages."""
    return [event async for event in person.client.room_get_event_relations(room_id, parent, *kind, **more)]


async def bundled(person, room_id, event_id):
    """What comes with an event of that which relates to it."""
    event = ok(await person.client.room_get_event(room_id, event_id)).event
    return event.source.get("unsigned", {}).get("m.relations", {})


async def react(person, room_id, event_id, key):
    content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": event_id, "key": key}}
    return await person.client.room_send(room_id, "m.reaction", content)


async def test_the_last_edit_comes_with_the_message(two):
    alice, bob, room_id = two
    original = await alice.say(room_id, "cake")
    edits = []
    for text in ("chocolate cake", "carrot cake"):
        edits.append(await alice.say(room_id, text, rel_type="m.replace", event_id=original))
        # The next edit is a later one by the clock, too.
        await bob.hears(room_id, edits[-1])
    forged = await bob.say(room_id, "no cake", rel_type="m.replace", event_id=original)
    await alice.hears(room_id, forged)

    event = ok(await bob.client.room_get_event(room_id, original)).event
    assert event.body == "cake"
    edit = event.source["unsigned"]["m.relations"]["m.replace"]
    assert (edit["event_id"], edit["content"]["m.new_content"]["body"]) == (edits[1], "carrot cake")
    by_anybody = await related(bob, room_id, original, RelationshipType.replacement, "m.room.message")
    assert [event.event_id for event in by_anybody] == [forged, *reversed(edits)]

    ok(await alice.client.room_redact(room_id, edits[1]))
    assert (await bundled(bob, room_id, original))["m.replace"]["event_id"] == edits[0]


async def test_reactions_are_heard_once_and_until_they_are_redacted(two):
    alice, bob, room_id = two
    message = await alice.say(room_id, "it burns")
    reaction = ok(await react(bob, room_id, message, "🔥")).event_id
    heard = await alice.hears(room_id, reaction)
    assert isinstance(heard, nio.ReactionEvent)
    assert (heard.key, heard.reacts_to, heard.sender) == ("🔥", message, bob.id)
    refused(await react(bob, room_id, message, "🔥"), "M_DUPLICATE_ANNOTATION")
    other = ok(await react(alice, room_id, message, "🔥")).event_id

    found = await related(alice, room_id, message, RelationshipType.annotation, "m.reaction")
    assert [(event.key, event.sender) for event in found] == [("🔥", alice.id), ("🔥", bob.id)]
    refused(await bob.client.room_redact(room_id, other), "M_FORBIDDEN")
    ok(await bob.client.room_redact(room_id, reaction))
    found = await related(alice, room_id, message, RelationshipType.annotation, "m.reaction")
    assert [event.event_id for event in found] == [other]
    ok(await react(bob, room_id, message, "🔥"))


async def test_a_thread_is_read_page_by_page(two):
    alice, bob, room_id = two
    root = await alice.say(room_id, "tell me everything")
    said = [f"part {number}" for number in range(5)]
    sent = [await bob.say(room_id, text, rel_type="m.thread", event_id=root) for text in said]
    await react(alice, room_id, root, "👀")
    for direction, expected in ((MessageDirection.back, said[::-1]), (MessageDirection.front, said)):
        page_of_two = {"direction": direction, "limit": 2}
        assert texts(await related(alice, room_id, root, RelationshipType.thread, **page_of_two)) == expected
    thread = (await bundled(alice, room_id, root))["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (5, sent[-1])
    assert thread["current_user_participated"]

    nested = {"msgtype": "m.text", "body": "aside", "m.relates_to": {"rel_type": "m.thread", "event_id": sent[0]}}
    refused(await alice.client.room_send(room_id, "m.room.message", nested), "M_UNKNOWN")
    ok(await bob.client.room_redact(room_id, sent[-1]))
    assert (await bundled(alice, room_id, root))["m.thread"]["count"] == 4


async def test_threads_are_listed_by_their_last_words(two):
    alice, bob, room_id = two
    quiet, lively, own = [await alice.say(room_id, text) for text in ("quiet", "lively", "my own")]
    await alice.say(room_id, "talking to myself", rel_type="m.thread", event_id=own)
    await alice.say(room_id, "anybody?", rel_type="m.thread", event_id=lively)
    await bob.say(room_id, "psst", rel_type="m.thread", event_id=quiet)
    await bob.say(room_id, "me!", rel_type="m.thread", event_id=lively)

    async def threads(*include):
        return [event.event_id async for event in bob.client.room_get_threads(room_id, *include, limit=1)]

    assert await threads() == [lively, quiet, own]
    assert await threads(ThreadInclusion.participated) == [lively, quiet]


async def test_a_thread_is_read_apart_from_the_conversation(two):
    alice, bob, room_id = two
    root = await alice.say(room_id, "a long story")
    ok(await bob.client.update_receipt_marker(room_id, root))

    async def unread():
        """What a client that knows threads has unread in the conversation, and one that does not in all."""
        counts = []
        for apart in (True, False):
            timeline = {"unread_thread_notifications": apart}
            synced = ok(await bob.client.sync(sync_filter={"room": {"timeline": timeline}}, full_state=True))
            counts.append(synced.rooms.join[room_id].unread_notifications.notification_count)
        return counts

    await alice.say(room_id, "once upon a time", rel_type="m.thread", event_id=root)
    last = await alice.say(room_id, "there was bob", rel_type="m.thread", event_id=root)
    assert await unread() == [0, 2]
    aside = await alice.say(room_id, "are you listening?")
    assert await unread() == [1, 3]
    ok(await bob.client.update_receipt_marker(room_id, aside))
    assert await unread() == [0, 2]
    ok(await bob.client.update_receipt_marker(room_id, last, thread_id=root))
    assert await unread() == [0, 0]

    def receipts():
        seen = alice.room(room_id).threaded_read_receipts.get(bob.id, {})
        return {thread: receipt.event_id for thread, receipt in seen.items()}

    await alice.until("both receipts", lambda: receipts() == {"main": aside, root: last})
