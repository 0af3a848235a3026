"""Somebody whose matrix-nio client encrypts, with vodozemac and its store in memory.

HEARTH_NODES, if it is there, names all nodes of the homeserver, separated by spaces: each device then speaks to one of
them, in turn, so that what one node takes has to arrive through another.
"""

import asyncio
import itertools
import os
from urllib.parse import quote

import nio

from person import BASE_URL, PATIENCE, Person, fresh, ok

NODES = itertools.cycle(os.environ.get("HEARTH_NODES", BASE_URL).split())


class EncryptedPerson(Person):
    def __init__(self, username):
        super().__init__(username, next(NODES), encryption_enabled=True, store=nio.store.SqliteMemoryStore)

    @classmethod
    async def arrive(cls, name):
        """A new account, logged in with its password on a device whose keys others can find."""
        # Whoever registers is logged in, and nio makes the keys for the first device that it is.
        visitor = Person(fresh(name))
        await visitor.register()
        await visitor.client.close()
        return await cls.on_new_device(visitor.username)

    @classmethod
    async def on_new_device(cls, username):
        person = cls(username)
        await person.log_in()
        ok(await person.client.keys_upload())
        return person

    @property
    def device(self):
        return self.client.device_id

    async def sync(self):
        """Syncs once and then does what nio's own loop does: uploads, queries and claims keys, and sends to devices."""
        await super().sync()
        if self.client.should_upload_keys:
            ok(await self.client.keys_upload())
        if self.client.should_query_keys:
            ok(await self.client.keys_query())
        if self.client.should_claim_keys:
            ok(await self.client.keys_claim(self.client.get_users_for_key_claiming()))
        for response in await self.client.send_to_device_messages():
            ok(response)

    def knows(self, other):
        """Whether this client has the keys of another one's device, and the device is not deleted."""
        devices = self.client.device_store.active_user_devices(other.id)
        return any(device.id == other.device for device in devices)

    async def meets(self, *others):
        for other in others:
            await self.until(f"the keys of {other.username}", lambda other=other: self.knows(other))

    async def say(self, room_id, text):
        content = {"msgtype": "m.text", "body": text}
        sent = await self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        return ok(sent).event_id

    async def wire(self, room_id, event_id):
        """An event as the server has it, which must be encrypted."""
        # By hand: nio decrypts what it asks for, if it can.
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/event/{quote(event_id)}"
        token = {"Authorization": f"Bearer {self.client.access_token}"}
        source = await (await self.client.send("GET", path, headers=token)).json()
        assert source["type"] == "m.room.encrypted", f"{source} was sent in the clear"
        event = nio.MegolmEvent.from_dict(source)
        event.room_id = room_id
        return event

    def opens(self, wire):
        """The text of an event that came from anywhere, or None if this device does not have its key now."""
        # Where there is no key at all, nio would ask the sender for it, again each time.
        if not self.client.olm.inbound_group_store.get(wire.room_id, wire.sender_key, wire.session_id):
            return None
        try:
            return self.client.decrypt_event(wire).body
        except nio.EncryptionError:
            return None

    async def reads(self, wire):
        return await self.until(f"the key of {wire.event_id}", lambda: self.opens(wire))

    async def catches_up(self):
        """Syncs until nothing is waiting any more."""
        before = None
        while before != self.client.next_batch:
            before = self.client.next_batch
            await asyncio.wait_for(self._sync_at_once(), PATIENCE)

    async def _sync_at_once(self):
        ok(await self.client.sync(timeout=0))


async def encrypted_room(creator, *others, **options):
    """The id of an encrypted room with all of them in it, whose devices the creator knows."""
    encryption = nio.EnableEncryptionBuilder().as_dict()
    invite = [other.id for other in others]
    created = await creator.client.room_create(initial_state=[encryption], invite=invite, **options)
    room_id = ok(created).room_id
    for other in others:
        await other.until("the invite", lambda other=other: room_id in other.client.invited_rooms)
        await other.joins(room_id)

    def everybody():
        room = creator.client.rooms.get(room_id)
        return room and room.encrypted and all(other.id in room.users for other in others)

    await creator.until("everybody to join", everybody)
    everyone = [creator, *others]
    for person in everyone:
        await person.meets(*(other for other in everyone if other is not person))
    return room_id
