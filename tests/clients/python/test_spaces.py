"""Rooms among rooms, through matrix-nio: spaces and the public directory."""

import nio

from person import fresh, ok, refused


async def make(person, name, **more):
    return ok(await person.client.room_create(name=name, preset=nio.RoomPreset.public_chat, **more)).room_id


async def put_in(person, space, child, **content):
    via = [person.id.split(":", 1)[1]]
    ok(await person.client.room_put_state(space, "m.space.child", {"via": via, **content}, child))


async def walk(person, space, **more):
    """The rooms of a space that somebody may know of, from pages of two."""
    rooms, page = [], None
    for _ in range(10):
        found = ok(await person.client.space_get_hierarchy(space, page, limit=2, **more))
        assert 1 <= len(found.rooms) <= 2
        rooms += [room["name"] for room in found.rooms]
        page = found.next_batch
        if page is None:
            return rooms
    raise AssertionError("the pages come to no end")


async def test_a_space_is_walked_in_the_order_of_its_rooms(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    top, inner = await make(alice, "Top", space=True), await make(alice, "Inner", space=True)
    first, deep, last = [await make(alice, name) for name in ("First", "Deep", "Last")]
    await put_in(alice, top, last, order="c")
    await put_in(alice, top, inner, order="b")
    await put_in(alice, top, first, order="a")
    await put_in(alice, inner, deep)
    assert await walk(bob, top) == ["Top", "First", "Inner", "Deep", "Last"]
    assert await walk(bob, top, max_depth=1) == ["Top", "First", "Inner", "Last"]

    await bob.joins(top)
    room = bob.room(top)
    assert (room.room_type, room.children) == ("m.space", {first, inner, last})
    ok(await alice.client.room_put_state(top, "m.space.child", {}, inner))
    await bob.until("the room to be taken out", lambda: room.children == {first, last})
    assert await walk(bob, top) == ["Top", "First", "Last"]
    refused(await bob.client.room_put_state(top, "m.space.child", {"via": ["localhost"]}, deep), "M_FORBIDDEN")


async def test_a_space_opens_its_rooms_to_its_members(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    space = await make(alice, "Guild", space=True)
    allow = [{"type": "m.room_membership", "room_id": space}]
    rule = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
    workshop = await make(alice, "Workshop", initial_state=[rule])
    await put_in(alice, space, workshop)
    refused(await bob.client.join(workshop), "M_FORBIDDEN")
    assert await walk(bob, space) == ["Guild"]
    await bob.joins(space)
    assert await walk(bob, space) == ["Guild", "Workshop"]
    await bob.joins(workshop)
    await bob.hears(workshop, await alice.say(workshop, "welcome to the guild"))


async def test_the_directory_is_searched_page_by_page(arrive):
    alice, bob = await arrive("alice"), await arrive("bob")
    word = fresh("ember")
    small, great = [
        await make(alice, f"{size} {word}", visibility=nio.RoomVisibility.public) for size in ("Small", "Great")
    ]
    await make(alice, f"Unlisted {word}")
    ok(await bob.client.join(great))

    async def search(**more):
        return ok(await bob.client.list_public_rooms(filter_generic_search_term=word, **more))

    first = await search(limit=1)
    assert [(room.room_id, room.num_joined_members) for room in first.public_rooms] == [(great, 2)]
    second = await search(limit=1, since=first.next_batch)
    assert [room.room_id for room in second.public_rooms] == [small]
    assert second.next_batch is None
    assert len(ok(await bob.client.list_public_rooms(limit=2)).public_rooms) == 2
