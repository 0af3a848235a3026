"""History through matrix-nio: pages in both directions, context, and the gap after a limited sync."""

import nio

from person import ok, texts

MESSAGES = 70
FORWARDS, BACKWARDS = nio.MessageDirection.front, nio.MessageDirection.back


async def pages(person, room_id, start, direction, limit=15):
    """All events from `start` to the end of the history, page by page."""
    events = []
    for _ in range(40):
        page = ok(await person.client.room_messages(room_id, start, direction=direction, limit=limit))
        assert len(page.chunk) <= limit
        events += page.chunk
        if not page.end or (not page.chunk and page.end == start):
            return events
        start = page.end
    raise AssertionError("the pages come to no end")


async def test_pages_in_both_directions(two):
    alice, bob, room_id = two
    said = [f"message {number}" for number in range(MESSAGES)]
    sent = [await alice.say(room_id, text) for text in said]
    await bob.hears(room_id, sent[-1])

    backwards = await pages(bob, room_id, bob.client.next_batch, BACKWARDS)
    assert texts(backwards) == said[::-1]
    assert isinstance(backwards[-1], nio.RoomCreateEvent)

    forwards = await pages(bob, room_id, None, FORWARDS)
    assert texts(forwards) == said
    assert [event.event_id for event in forwards] == [event.event_id for event in reversed(backwards)]

    context = ok(await bob.client.room_context(room_id, sent[30], limit=10))
    around = [*reversed(context.events_before), context.event, *context.events_after]
    assert texts(around) == said[25:36]
    assert texts(await pages(bob, room_id, context.start, BACKWARDS)) == said[:25][::-1]
    assert texts(await pages(bob, room_id, context.end, FORWARDS)) == said[36:]


async def test_a_gap_is_filled_from_prev_batch(two):
    alice, bob, room_id = two
    await bob.hears(room_id, await alice.say(room_id, "the last that bob hears"))
    since = bob.client.next_batch
    missed = [f"missed {number}" for number in range(30)]
    for text in missed:
        await alice.say(room_id, text)

    limited = {"room": {"timeline": {"limit": 5}}}
    synced = ok(await bob.client.sync(since=since, sync_filter=limited))
    timeline = synced.rooms.join[room_id].timeline
    assert timeline.limited
    assert texts(timeline.events) == missed[-5:]

    page = await bob.client.room_messages(room_id, timeline.prev_batch, end=since, limit=100)
    assert texts(ok(page).chunk) == missed[:-5][::-1]


async def test_a_filter_picks_what_a_page_holds(two):
    alice, bob, room_id = two
    first = await bob.say(room_id, "from bob")
    await alice.say(room_id, "from alice")
    last = await alice.say(room_id, "and again")
    await bob.hears(room_id, last)
    only_bob = {"senders": [bob.id], "types": ["m.room.message"]}
    page = ok(await bob.client.room_messages(room_id, bob.client.next_batch, message_filter=only_bob))
    assert [event.event_id for event in page.chunk] == [first]

    stored = ok(await bob.client.upload_filter(room={"timeline": {"types": ["m.room.topic"]}})).filter_id
    fresh = ok(await bob.client.sync(sync_filter=stored, full_state=True))
    kinds = {type(event) for event in fresh.rooms.join[room_id].timeline.events}
    assert kinds <= {nio.RoomTopicEvent}
