"""Keeping order among people of two servers: kicks, bans, power levels."""

from conftest import forbidden, settle


def test_who_is_kicked_may_come_back_and_who_is_banned_may_not(sides):
    alice, bob, carl = sides.people("Alice", "bob", "carl")
    room = alice.creates(sides.version)
    bob.joins(room, sides.here)
    carl.joins(room, sides.here)
    alice.sees_member(room, carl, "join")

    alice.acts(room, "kick", bob, reason="too loud")
    bob.until("the kick", lambda: room in bob.left)
    forbidden(lambda: bob.says(room, "why?"))
    bob.joins(room, sides.here)
    alice.sees_member(room, bob, "join")

    alice.acts(room, "ban", bob, reason="burnt the rug")
    bob.until("the ban", lambda: room in bob.left)
    # His own server knows, as carl is still there.
    forbidden(lambda: bob.joins(room, sides.here))
    alice.acts(room, "unban", bob)
    carl.sees_member(room, bob, "leave")
    bob.joins(room, sides.here)
    alice.hears(room, bob.says(room, "sorry about the rug"))
    settle(room, alice, bob)


def test_a_server_that_is_not_in_the_room_learns_of_a_ban_when_it_asks(sides):
    alice, bob = sides.people("Alice", "bob")
    room = alice.creates(sides.version)
    alice.acts(room, "ban", bob)
    forbidden(lambda: bob.joins(room, sides.here))
    alice.acts(room, "unban", bob)
    bob.joins(room, sides.here)
    settle(room, alice, bob)


def test_power_is_given_and_taken_across_servers(sides):
    alice, bob, carol, dave = sides.people("Alice", "bob", "Carol", "dave")
    room = alice.creates(sides.version)
    for person in (bob, carol, dave):
        person.joins(room, sides.here)
    levels = alice.state(room, "m.room.power_levels")
    forbidden(lambda: bob.sets(room, "m.room.topic", {"topic": "ashes"}))

    users = levels.get("users", {})
    change = alice.sets(room, "m.room.power_levels", {**levels, "users": {**users, bob.id: 50}})
    bob.hears(room, change)
    topic = bob.sets(room, "m.room.topic", {"topic": "ashes"})
    assert alice.hears(room, topic)["content"]["topic"] == "ashes"
    bob.acts(room, "kick", carol)
    carol.until("the kick", lambda: room in carol.left)
    bob.acts(room, "ban", dave)
    alice.sees_member(room, dave, "ban")
    forbidden(lambda: bob.acts(room, "kick", alice))
    redacted = alice.says(room, "something that bob takes down")
    bob.hears(room, redacted)
    alice.hears(room, bob.redacts(room, redacted, "power"))
    assert alice.event(room, redacted)["content"] == {}

    change = alice.sets(room, "m.room.power_levels", levels)
    bob.hears(room, change)
    forbidden(lambda: bob.sets(room, "m.room.topic", {"topic": "smoke"}))
    assert alice.state(room, "m.room.topic")["topic"] == "ashes"
    settle(room, alice, bob)


def test_a_server_that_is_kept_out_by_acl_is_not_heard(sides):
    alice, bob, carol = sides.people("Alice", "bob", "Carol")
    room = alice.creates(sides.version)
    bob.joins(room, sides.here)
    alice.sees_member(room, bob, "join")
    # Patterns are held against names without their ports.
    host = sides.there.name.split(":")[0]
    acl = alice.sets(room, "m.room.server_acl", {"allow": ["*"], "deny": [host], "allow_ip_literals": True})
    # That it is kept out is the last that the other server hears.
    bob.hears(room, acl)
    unheard = bob.says(room, "hello?")
    settled = alice.says(room, "peace")
    carol.joins(room)
    alice.hears(room, settled)
    alice.sees_member(room, carol, "join")
    opened = alice.sets(room, "m.room.server_acl", {"allow": ["*"], "deny": [], "allow_ip_literals": True})
    bob.hears(room, opened)
    heard = bob.says(room, "hello again")
    alice.hears(room, heard)
    assert unheard in bob.rooms[room]
    settle(room, alice, bob)
