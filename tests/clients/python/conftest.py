"""People for the tests, who leave when the test is over."""

import pytest

from person import Person, ok


@pytest.fixture
async def arrive():
    """Makes people: `alice = await arrive("alice")`."""
    people = []

    async def arrive(name):
        people.append(await Person.arrive(name))
        return people[-1]

    yield arrive
    for person in people:
        await person.client.close()


@pytest.fixture
async def two(arrive):
    """Alice, bob, and the id of a private room with both of them in it."""
    alice, bob = await arrive("alice"), await arrive("bob")
    created = await alice.client.room_create(name="The hearth", topic="embers", invite=[bob.id])
    room_id = ok(created).room_id
    await bob.until("the invite", lambda: room_id in bob.client.invited_rooms)
    await bob.joins(room_id)
    await alice.until("bob to join", lambda: bob.id in getattr(alice.client.rooms.get(room_id), "users", ()))
    return alice, bob, room_id
