"""Ways into a room of another server, and out of it: invitations, restricted rooms, knocks."""

import pytest

from conftest import forbidden, settle


def test_an_invitation_is_taken_turned_down_or_taken_back(sides):
    alice, bob, carl = sides.people("Alice", "bob", "carl")
    room = alice.creates(sides.version, preset="private_chat", name="The hearth", topic="embers")
    forbidden(lambda: bob.joins(room, sides.here))

    alice.acts(room, "invite", bob, reason="come in")
    said = bob.until("the invitation", lambda: bob.invited.get(room))
    kinds = {one["type"]: one["content"] for one in said if one["type"] != "m.room.member"}
    assert kinds["m.room.name"] == {"name": "The hearth"}
    assert kinds["m.room.create"].get("room_version") == sides.version
    bob.joins(room)
    alice.sees_member(room, bob, "join")

    # Of a server that is there already, and then of one that is not.
    for leaver in (None, bob):
        if leaver:
            leaver.leaves(room)
            alice.sees_member(room, leaver, "leave")
        alice.acts(room, "invite", carl)
        carl.until("the invitation", lambda: room in carl.invited)
        carl.leaves(room)
        alice.sees_member(room, carl, "leave")
        alice.acts(room, "invite", carl)
        carl.until("the second invitation", lambda: room in carl.invited)
        alice.acts(room, "kick", carl)
        carl.until("the invitation to be taken back", lambda: room not in carl.invited)
    # Who left without an invitation needs a new one, also from somebody of another server.
    forbidden(lambda: bob.joins(room, sides.here))
    alice.acts(room, "invite", bob)
    bob.until("the invitation", lambda: room in bob.invited)
    bob.joins(room)
    carol = sides.people("Carol")[0]
    bob_invites_across(bob, alice, carol, room)
    settle(room, alice, bob)


def bob_invites_across(bob, alice, carol, room):
    alice.sees_member(room, bob, "join")
    bob.acts(room, "invite", carol)
    carol.until("the invitation", lambda: room in carol.invited)
    carol.joins(room)
    bob.sees_member(room, carol, "join")


@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
def test_who_is_in_one_room_may_join_another(sides, rule):
    alice, bob, carl, dave = sides.people("Alice", "bob", "carl", "dave")
    club = alice.creates(sides.version, name="The club")
    condition = {"type": "m.room_membership", "room_id": club}
    rules = {"type": "m.room.join_rules", "content": {"join_rule": rule, "allow": [condition]}}
    room = alice.creates(sides.version, name="The back room", initial_state=[rules])
    # Nobody of the other server is in either.
    forbidden(lambda: bob.joins(room, sides.here))
    bob.joins(club, sides.here)
    alice.sees_member(club, bob, "join")
    bob.joins(room, sides.here)
    joined = bob.state(room, "m.room.member", bob.id)
    assert joined["join_authorised_via_users_server"] == alice.id
    alice.sees_member(room, bob, "join")

    # Now the other server is in both, and has nobody who may invite where the room says who may.
    levels = alice.state(room, "m.room.power_levels")
    bob.hears(room, alice.sets(room, "m.room.power_levels", {**levels, "invite": 50}))
    forbidden(lambda: carl.joins(room, sides.here))
    carl.joins(club, sides.here)
    alice.sees_member(club, carl, "join")
    carl.joins(room, sides.here)
    assert carl.state(room, "m.room.member", carl.id)["join_authorised_via_users_server"] == alice.id
    alice.sees_member(room, carl, "join")

    # And now it has.
    users = levels.get("users", {})
    bob.hears(room, alice.sets(room, "m.room.power_levels", {**levels, "invite": 50, "users": {**users, bob.id: 50}}))
    dave.joins(club, sides.here)
    dave.joins(room, sides.here)
    assert dave.state(room, "m.room.member", dave.id)["join_authorised_via_users_server"] in (alice.id, bob.id)
    alice.sees_member(room, dave, "join")
    alice.hears(room, dave.says(room, "what a nice back room"))
    settle(room, alice, bob)
    settle(club, alice, bob)


def test_a_knock_is_answered_denied_or_taken_back(sides):
    alice, bob, carl, dave = sides.people("Alice", "bob", "carl", "dave")
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = alice.creates(sides.version, preset="private_chat", name="The hearth", initial_state=[rules])
    forbidden(lambda: bob.joins(room, sides.here))

    for person in (bob, dave):
        person.knocks(room, sides.here)
        alice.sees_member(room, person, "knock")
        said = person.until("the knock", lambda: person.knocked.get(room))
        kinds = {one["type"]: one["content"] for one in said if one["type"] != "m.room.member"}
        assert kinds["m.room.name"] == {"name": "The hearth"}
    # From outside of a room Synapse takes a knock back only for itself.
    if sides.there.software == "hearth":
        dave.leaves(room)
        alice.sees_member(room, dave, "leave")
    alice.acts(room, "invite", bob)
    bob.until("the invitation", lambda: room in bob.invited)
    bob.joins(room)
    alice.hears(room, bob.says(room, "thank you"))

    # The other server is in the room now, and knocks by itself. (Of a denial, Synapse says nothing to servers outside.)
    carl.knocks(room, sides.there)
    alice.sees_member(room, carl, "knock")
    carl.until("the knock", lambda: room in carl.knocked)
    alice.acts(room, "kick", carl, reason="not today")
    carl.until("the denial", lambda: room not in carl.knocked)
    carl.knocks(room, sides.there)
    alice.sees_member(room, carl, "knock")
    carl.leaves(room)
    alice.sees_member(room, carl, "leave")
    carl.knocks(room, sides.there)
    alice.sees_member(room, carl, "knock")
    alice.acts(room, "invite", carl)
    carl.until("the invitation", lambda: room in carl.invited)
    carl.joins(room)
    settle(room, alice, bob)
