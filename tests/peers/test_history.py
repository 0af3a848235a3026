"""What was said before one came, and while one was away."""

import pytest

from conftest import settle
from person import MESSAGE


def bodies(events):
    """What messages say, the oldest first."""
    return [event["content"].get("body") for event in reversed(events) if event["type"] == MESSAGE]


def test_history_from_before_the_join_is_paged_back(sides):
    alice, bob = sides.people("Alice", "bob")
    room = alice.creates(sides.version)
    said = []
    for number in range(60):
        if number % 20 == 10:
            alice.sets(room, "m.room.topic", {"topic": f"topic {number}"})
        said.append(f"message {number}")
        alice.says(room, said[-1])
    bob.joins(room, sides.here)
    said.append("and now")
    bob.hears(room, alice.says(room, "and now"))

    events = bob.pages_back(room, limit=25)
    assert bodies(events) == said
    assert [event["event_id"] for event in events] == [event["event_id"] for event in alice.pages_back(room)]
    assert events[-1]["type"] == "m.room.create"
    first = next(event for event in reversed(events) if event["type"] == MESSAGE)
    found = bob.get("rooms", room, "timestamp_to_event", ts=first["origin_server_ts"], dir="f", version="v1")
    assert found["event_id"] == first["event_id"]
    around = bob.get("rooms", room, "context", first["event_id"], limit=4)
    assert around["event"]["content"]["body"] == "message 0"
    settle(room, alice, bob)


@pytest.mark.parametrize("visibility", ["shared", "joined"])
def test_what_was_said_while_one_was_away(sides, visibility):
    alice, bob = sides.people("Alice", "bob")
    seen = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
    room = alice.creates(sides.version, initial_state=[seen])
    alice.says(room, "before")
    bob.joins(room, sides.here)
    bob.hears(room, alice.says(room, "together"))
    bob.leaves(room)
    alice.sees_member(room, bob, "leave")
    for number in range(30):
        alice.says(room, f"away {number}")
    bob.joins(room, sides.here)
    bob.hears(room, alice.says(room, "again"))

    away = [f"away {number}" for number in range(30)]
    expected = ["before", "together", *away, "again"] if visibility == "shared" else ["together", "again"]
    assert bodies(bob.pages_back(room, limit=20)) == expected
    settle(room, alice, bob)
