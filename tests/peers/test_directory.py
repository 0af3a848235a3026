"""Finding rooms of another server: aliases, its directory, spaces, upgrades."""

import itertools

from conftest import forbidden, settle
from person import Refused

_numbers = itertools.count(1)


def test_a_room_is_found_by_its_alias_and_in_the_directory(sides):
    alice, bob = sides.people("Alice", "bob")
    local = f"hearth-{sides.version}-{next(_numbers)}"
    room = alice.creates(sides.version, visibility="public", room_alias_name=local, name=f"Hearth {local}", topic="embers")
    alias = f"#{local}:{sides.here.name}"
    assert alice.state(room, "m.room.canonical_alias")["alias"] == alias

    found = bob.get("directory", "room", alias)
    assert found["room_id"] == room
    assert sides.here.name in found["servers"]
    listed = bob.post("publicRooms", body={"filter": {"generic_search_term": local}}, server=sides.here.name)
    (entry,) = [one for one in listed["chunk"] if one["room_id"] == room]
    assert (entry["name"], entry["topic"], entry["canonical_alias"]) == (f"Hearth {local}", "embers", alias)
    assert (entry["num_joined_members"], entry["join_rule"]) == (1, "public")
    # Another limit each time, as Synapse remembers lists that it has asked for.
    listed = bob.get("publicRooms", server=sides.here.name, limit=100 + next(_numbers))
    assert room in {one["room_id"] for one in listed["chunk"]}

    assert bob.joins(alias) == room
    alice.hears(room, bob.says(room, "found you"))
    alice.call("DELETE", "directory", "room", alias)
    try:
        bob.get("directory", "room", alias)
        raise AssertionError("the alias is still there")
    except Refused as refused:
        assert (refused.status, refused.errcode) == (404, "M_NOT_FOUND"), refused
    settle(room, alice, bob)


def test_a_profile_is_read_across_servers(sides):
    alice, bob = sides.people("Alice", "bob")
    alice.put("profile", alice.id, "displayname", body={"displayname": "Alice of the hearth"})
    assert bob.get("profile", alice.id, "displayname") == {"displayname": "Alice of the hearth"}
    room = alice.creates(sides.version)
    bob.joins(room, sides.here)
    assert bob.get("rooms", room, "joined_members")["joined"][alice.id]["display_name"] == "Alice of the hearth"


def test_a_space_is_walked_across_servers(sides):
    alice, bob = sides.people("Alice", "bob")
    space = alice.creates(sides.version, name="The house", creation_content={"type": "m.space"})
    rooms = [alice.creates(sides.version, name=name) for name in ("Kitchen", "Attic")]
    secret = alice.creates(sides.version, preset="private_chat", name="Cellar")
    for child in (*rooms, secret):
        alice.sets(space, "m.space.child", {"via": [sides.here.name]}, key=child)
    bob.joins(space, sides.here)
    walked = bob.get("rooms", space, "hierarchy", version="v1")["rooms"]
    assert {one["room_id"] for one in walked} == {space, *rooms}
    assert {one["name"] for one in walked} == {"The house", "Kitchen", "Attic"}
    forbidden(lambda: bob.joins(secret, sides.here))
    for room in rooms:
        bob.joins(room, sides.here)
        settle(room, alice, bob)
    settle(space, alice, bob)


def test_who_is_in_a_room_follows_it_to_its_successor(sides):
    alice, bob = sides.people("Alice", "bob")
    old = alice.creates(sides.version, name="The hearth")
    bob.joins(old, sides.here)
    alice.sees_member(old, bob, "join")
    new = alice.post("rooms", old, "upgrade", body={"new_version": "12"})["replacement_room"]

    def tombstone():
        return [one for one in bob.rooms.get(old, {}).values() if one["type"] == "m.room.tombstone"]

    (said,) = bob.until("the tombstone", tombstone)
    assert said["content"]["replacement_room"] == new
    bob.joins(new, sides.here)
    assert bob.state(new, "m.room.create")["predecessor"]["room_id"] == old
    assert bob.state(new, "m.room.name") == {"name": "The hearth"}
    alice.hears(new, bob.says(new, "cosy here"))
    settle(old, alice, bob)
    settle(new, alice, bob)
