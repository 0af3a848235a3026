"""A server is away while the other's people go on, and then both have everything."""

import concurrent.futures

from conftest import settle
from person import Person
from servers import start
from test_history import bodies


def talk(people, rooms, messages, words):
    """Lets each of them say their share in their rooms in turn, and returns the bodies by room."""
    said = {room: [] for room in rooms}
    for number in range(messages):
        room = rooms[number % len(rooms)]
        said[room].append(f"{words} {number}")
        people.says(room, said[room][-1])
    return said


def test_a_server_that_was_away_gets_everything(servers, maker, messages):
    """`maker` is who stays. Rooms of each version, made on either side."""
    stays, goes = servers[maker], servers["synapse" if maker == "hearth" else "hearth"]
    alice, bob = Person(stays, "alice"), Person(goes, "bob")
    rooms = []
    for version in ("10", "11", "12"):
        rooms += [alice.creates(version), bob.creates(version)]
        bob.joins(rooms[-2], stays)
        alice.joins(rooms[-1], goes)
        bob.sees_member(rooms[-1], alice, "join")
        alice.sees_member(rooms[-2], bob, "join")
    bob.syncs()

    assert not goes.stop()
    said = talk(alice, rooms, messages, "while you were away")
    start([goes])
    # Whoever is heard again is there again.
    for room in rooms:
        alice.hears(room, bob.says(room, "here again"))
        bob.hears(room, alice.says(room, "welcome back"))
    for room in rooms:
        expected = sorted([*said[room], "here again", "welcome back"])
        assert sorted(bodies(alice.pages_back(room))) == expected
        assert sorted(bodies(bob.pages_back(room))) == expected
        settle(room, alice, bob)


def test_both_go_on_alone_and_end_the_same(servers):
    """One is away while the other writes, in turn, so that each has a branch that the other has not."""
    hearth, synapse = servers["hearth"], servers["synapse"]
    alice, bob = Person(hearth, "alice"), Person(synapse, "bob")
    rooms = []
    for version in ("10", "11", "12"):
        for creator, other in ((alice, bob), (bob, alice)):
            room = creator.creates(version)
            other.joins(room, creator.server)
            levels = creator.state(room, "m.room.power_levels")
            levels["users"] = {**levels.get("users", {}), other.id: 100 if version == "12" else 99}
            other.hears(room, creator.sets(room, "m.room.power_levels", levels))
            rooms.append(room)

    assert not synapse.stop()
    said = {(alice, room): writes_alone(alice, room) for room in rooms}
    assert not hearth.stop()
    start([synapse])
    said |= {(bob, room): writes_alone(bob, room) for room in rooms}
    start([hearth])
    for room in rooms:
        alice.hears(room, bob.says(room, "together"))
        bob.hears(room, alice.says(room, "together again"))
        for person, other in ((alice, bob), (bob, alice)):
            assert said[person, room] in {event["event_id"] for event in other.pages_back(room)}
        settle(room, alice, bob)


def writes_alone(person, room):
    """Messages and state that the other's server changes as well. Returns the last message."""
    who = person.server.software
    person.says(room, f"{who} alone")
    person.sets(room, "m.room.topic", {"topic": f"the topic of {who}"})
    person.sets(room, "m.room.name", {"name": f"the name of {who}"})
    person.sets(room, "org.example.note", {"by": who}, key=who)
    return person.says(room, f"{who} still alone")


def test_what_is_changed_at_once_ends_the_same(sides):
    alice, bob, *crowd = sides.people("Alice", "bob", "Carol", "dave")
    room = alice.creates(sides.version)
    for person in (bob, *crowd):
        person.joins(room, sides.here)
    levels = alice.state(room, "m.room.power_levels")
    users = {**levels.get("users", {}), bob.id: 90}
    bob.hears(room, alice.sets(room, "m.room.power_levels", {**levels, "users": users}))

    def acts(person, victim):
        for number in range(6):
            person.sets(room, "m.room.topic", {"topic": f"{person.id} {number}"})
            person.says(room, f"{number}")
            person.acts(room, "unban" if number % 2 else "ban", victim)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for done in [pool.submit(acts, alice, crowd[1]), pool.submit(acts, bob, crowd[1])]:
            done.result()
    alice.hears(room, bob.says(room, "enough"))
    bob.hears(room, alice.says(room, "peace"))
    settle(room, alice, bob)
