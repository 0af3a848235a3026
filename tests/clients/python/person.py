"""Somebody with an account and a matrix-nio client: what the tests drive.

HEARTH_URL names the homeserver. Nothing in here is told how the server works: all that a test
learns, it learns from nio, and it waits for sync responses instead of sleeping.
"""

import asyncio
import os
import uuid

import nio

BASE_URL = os.environ["HEARTH_URL"]
PATIENCE = 20.0  # seconds that anything may take to reach a client that is waiting for it
PASSWORD = "correct horse battery staple"


def fresh(name):
    """A name that no earlier run on the same server has taken."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def ok(response):
    """The response, unless the server refused the request."""
    assert not isinstance(response, nio.ErrorResponse), response
    return response


def refused(response, *errcodes):
    assert isinstance(response, nio.ErrorResponse), f"{response} is not a refusal"
    assert response.status_code in errcodes, response


class Person:
    def __init__(self, username, base_url=BASE_URL, **config):
        # nio is to tell of a rate limit or a lost connection, not to try again until it goes well.
        config = {"max_limit_exceeded": 0, "max_timeouts": 0, "request_timeout": PATIENCE, **config}
        config = nio.AsyncClientConfig(**{"encryption_enabled": False, **config})
        self.username = username
        self.client = nio.AsyncClient(base_url, username, config=config)
        self.heard = {}  # room id → every timeline event of all syncs so far
        self.left = set()  # nio keeps a room that was left among its rooms
        self.client.add_event_callback(self._hear, nio.Event)

    @classmethod
    async def arrive(cls, name):
        """A new account, logged in with its password."""
        person = cls(fresh(name))
        await person.register()
        await person.log_in()
        return person

    async def register(self, password=PASSWORD):
        return ok(await self.client.register(self.username, password))

    async def log_in(self, password=PASSWORD):
        self.client.access_token = self.client.device_id = ""
        return ok(await self.client.login(password))

    @property
    def id(self):
        return self.client.user_id

    async def _hear(self, room, event):
        self.heard.setdefault(room.room_id, []).append(event)

    async def sync(self):
        rooms = ok(await self.client.sync(timeout=10_000)).rooms
        self.left |= rooms.leave.keys()
        self.left -= rooms.join.keys() | rooms.invite.keys()

    def room(self, room_id):
        return self.client.rooms[room_id]

    async def until(self, what, look):
        """Syncs until `look` finds something, and returns it."""
        async def sync_until_found():
            while not (found := look()):
                await self.sync()
            return found

        try:
            return await asyncio.wait_for(sync_until_found(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"{self.username} waited {PATIENCE} s in vain for {what}") from None

    async def hears(self, room_id, event_id):
        def heard():
            return next((event for event in self.heard.get(room_id, []) if event.event_id == event_id), None)

        return await self.until(f"event {event_id}", heard)

    async def joins(self, room_id):
        ok(await self.client.join(room_id))
        await self.until("the join", lambda: room_id in self.client.rooms and room_id not in self.left)

    async def say(self, room_id, text, **relates_to):
        """Sends a text, with what it relates to, and returns its event id."""
        content = {"msgtype": "m.text", "body": text}
        if relates_to.get("rel_type") == "m.replace":
            content["m.new_content"] = dict(content)
        if relates_to:
            content["m.relates_to"] = relates_to
        return ok(await self.client.room_send(room_id, "m.room.message", content)).event_id


def texts(events):
    return [event.body for event in events if isinstance(event, nio.RoomMessageText)]
