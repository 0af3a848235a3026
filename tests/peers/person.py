"""A user with one device on one of the servers, and what they have seen by syncing."""

import itertools
import time
import urllib.parse

import requests

PATIENCE = 60  # seconds until something that has to come across is given up
MESSAGE = "m.room.message"
_numbers = itertools.count(1)


class Refused(Exception):
    """A server said no."""

    def __init__(self, request, answer):
        try:
            self.body = answer.json()
        except ValueError:
            self.body = {}
        self.status, self.errcode = answer.status_code, self.body.get("errcode")
        super().__init__(f"{request}: {self.status} {answer.text[:500]}")


class Person:
    def __init__(self, server, name):
        self.server, self.http = server, requests.Session()
        self.http.trust_env = False
        self.since, self.rooms, self.invited, self.knocked, self.left = None, {}, {}, {}, set()
        body = {"username": f"{name}-{next(_numbers)}", "password": "a long enough password", "inhibit_login": False}
        try:
            session = self.post("register", body=body)
        except Refused as refused:
            if refused.status != 401:
                raise
            auth = {"type": "m.login.dummy", "session": refused.body["session"]}
            session = self.post("register", body={**body, "auth": auth})
        self.id = session["user_id"]
        self.http.headers["Authorization"] = f"Bearer {session['access_token']}"

    # --- requests ------------------------------------------------------------------------------------------

    def call(self, method, *path, body=None, version="v3", **query):
        """A request to `/_matrix/client/v3/…`. The names of query parameters that end with `_` are Python's words."""
        path = "/".join(urllib.parse.quote(part, safe="") for part in path)
        query = {key.rstrip("_"): value for key, value in query.items() if value is not None}
        address = f"{self.server.url}/_matrix/client/{version}/{path}"
        answer = self.http.request(method, address, params=query, json=body, timeout=120)
        if answer.status_code != 200:
            raise Refused(f"{method} {path} at {self.server.software} by {getattr(self, 'id', 'nobody')}", answer)
        return answer.json()

    def get(self, *path, **query):
        return self.call("GET", *path, **query)

    def post(self, *path, body=None, **query):
        return self.call("POST", *path, body=body or {}, **query)

    def put(self, *path, body=None, **query):
        return self.call("PUT", *path, body=body or {}, **query)

    # --- rooms ---------------------------------------------------------------------------------------------

    def creates(self, version, **options):
        return self.post("createRoom", body={"preset": "public_chat", "room_version": version, **options})["room_id"]

    def joins(self, room, *via, **content):
        """By the room's identifier through servers that are in it, or by an alias."""
        return self.post("join", room, body=content, via=[server.name for server in via] or None)["room_id"]

    def knocks(self, room, *via):
        names = [server.name for server in via]
        return self.post("knock", room, body={"reason": "please"}, via=names, server_name=names)["room_id"]

    def leaves(self, room):
        self.post("rooms", room, "leave")

    def acts(self, room, act, whom, **content):
        """Invites, kicks, bans or unbans somebody."""
        self.post("rooms", room, act, body={"user_id": whom.id, **content})

    def sends(self, room, kind, content):
        return self.put("rooms", room, "send", kind, f"t{next(_numbers)}", body=content)["event_id"]

    def says(self, room, text):
        return self.sends(room, MESSAGE, {"msgtype": "m.text", "body": text})

    def sets(self, room, kind, content, key=""):
        return self.put("rooms", room, "state", kind, key, body=content)["event_id"]

    def redacts(self, room, event_id, reason):
        return self.put("rooms", room, "redact", event_id, f"t{next(_numbers)}", body={"reason": reason})["event_id"]

    def state(self, room, kind, key=""):
        return self.get("rooms", room, "state", kind, key)

    def event(self, room, event_id):
        return self.get("rooms", room, "event", event_id)

    def pages_back(self, room, limit=100, until=None):
        """All that there is of a room, the newest first, as far as an event or its beginning."""
        events, at = [], None
        while True:
            page = self.get("rooms", room, "messages", dir="b", limit=limit, from_=at)
            events += page["chunk"]
            at = page.get("end")
            if not at or any(event["event_id"] == until for event in page["chunk"]):
                return events

    # --- syncing -------------------------------------------------------------------------------------------

    def syncs(self, timeout=0):
        query = {"timeout": int(timeout * 1000), "filter": '{"room":{"timeline":{"limit":1000}}}'}
        news = self.get("sync", since=self.since, **query)
        self.since = news["next_batch"]
        rooms = news.get("rooms", {})
        for kind in ("leave", "join"):
            for room, what in rooms.get(kind, {}).items():
                seen = self.rooms.setdefault(room, {})
                for event in what.get("state", {}).get("events", []) + what.get("timeline", {}).get("events", []):
                    seen[event["event_id"]] = event
                self.invited.pop(room, None)
                self.knocked.pop(room, None)
                (self.left.add if kind == "leave" else self.left.discard)(room)
        # Synapse says of one who was invited again that they left as well.
        for room, what in rooms.get("invite", {}).items():
            self.invited[room] = what["invite_state"]["events"]
        for room, what in rooms.get("knock", {}).items():
            self.knocked[room] = what["knock_state"]["events"]

    def until(self, what, holds, seconds=PATIENCE):
        """Syncs until something holds, and returns that."""
        deadline = time.monotonic() + seconds
        while True:
            self.syncs(1 if self.since else 0)
            if found := holds():
                return found
            assert time.monotonic() < deadline, f"{self.id} has waited {seconds} s for {what}"

    def hears(self, room, event_id, seconds=PATIENCE):
        """Waits for an event to come by syncing, and returns it."""
        return self.until(event_id, lambda: self.rooms.get(room, {}).get(event_id), seconds)

    def sees_member(self, room, whom, membership):
        def is_so():
            # The newest comes last.
            said = [
                event["content"].get("membership")
                for event in self.rooms.get(room, {}).values()
                if event["type"] == "m.room.member" and event["state_key"] == whom.id
            ]
            return said and said[-1] == membership

        self.until(f"{whom.id} to be {membership}", is_so)
