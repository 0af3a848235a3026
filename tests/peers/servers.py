"""
The two servers that share rooms, each with a certificate of the tests' own authority.

Their names say where they are, `127.0.0.1:PORT` and `localhost:PORT`, so that nobody has to change what names mean on
this machine, and both kinds of name are met.
"""

import base64
import contextlib
import json
import os
import pathlib
import secrets
import sqlite3
import sys

import requests
import trustme

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

import hearth

# They are started by what has a watchdog, which ends a whole group.
hearth.Server.start_new_session = False

SYNAPSE_LOG = """
version: 1
formatters: {line: {format: "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: FILE, formatter: line}}
root: {level: INFO, handlers: [file]}
disable_existing_loggers: false
"""


class Authority:
    """Whom both servers believe, and nobody else does."""

    def __init__(self, folder):
        self.authority, self.folder = trustme.CA(), folder
        self.pem = folder / "authority.pem"
        self.authority.cert_pem.write_to_path(self.pem)

    def certificate(self, host):
        """The files with a certificate for a host, and with its key."""
        issued = self.authority.issue_cert(host)
        certificate, key = self.folder / f"{host}.pem", self.folder / f"{host}.key"
        certificate.unlink(missing_ok=True)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(certificate, append=True)
        issued.private_key_pem.write_to_path(key)
        return certificate, key


class Hearth(hearth.Server):
    """On the address of this machine, whose name needs no look-up."""

    software = "hearth"

    def __init__(self, binary, folder, authority):
        super().__init__(binary, folder, "sqlite")
        port = hearth.free_port()
        self.name = f"127.0.0.1:{port}"
        certificate, key = authority.certificate("127.0.0.1")
        clients = self.url.removeprefix("http://")
        self.environment |= {
            "HEARTH_SERVER_NAME": self.name,
            "HEARTH_LISTEN": json.dumps([f"{clients} client", f"tls:{self.name} federation"]),
            "HEARTH_TLS__CERTIFICATE": str(certificate),
            "HEARTH_TLS__KEY": str(key),
            "HEARTH_FEDERATION__ENABLED": "true",
            "HEARTH_FEDERATION__ALLOWED_NETWORKS": '["127.0.0.0/8", "::1"]',
            "HEARTH_FEDERATION__CERTIFICATE_AUTHORITIES": json.dumps([str(authority.pem)]),
            # Nobody is there. What `localhost` means is known without asking.
            "HEARTH_FEDERATION__NAME_SERVERS": '["127.0.0.1"]',
            "HEARTH_FEDERATION__TRUSTED_KEY_SERVERS": "[]",
        }

    def extremities(self, room_id):
        """The events of a room that no other follows."""
        database = f"file:{self.folder}/data/hearth.sqlite3?mode=ro"
        with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
            found = connection.execute("SELECT extremities FROM rooms WHERE room_id = ?", [room_id]).fetchone()
        return set(json.loads(found[0])) if found else set()

    def state(self, room_id, member):
        """The identifiers of the room's state events by type and key, as one who is in it sees them."""
        return {(one["type"], one["state_key"]): one["event_id"] for one in member.get("rooms", room_id, "state")}


class Synapse(hearth.Server):
    """By a name that has to be looked up."""

    software = "synapse"
    start_seconds = 120

    def __init__(self, folder, authority):
        super().__init__(sys.executable, folder, "sqlite")
        self.command = [sys.executable, "-m", "synapse.app.homeserver", "-c", folder / "homeserver.json"]
        # Messages of several lines make its log hard to read.
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = folder / "synapse.log"
        port = hearth.free_port()
        self.name = f"localhost:{port}"
        self.secret, self.admin = secrets.token_hex(16), None
        certificate, key = authority.certificate("localhost")
        (folder / "log.yaml").write_text(SYNAPSE_LOG.replace("FILE", json.dumps(str(self.log))))
        often = {"per_second": 10_000, "burst_count": 10_000}
        settings = {
            "server_name": self.name,
            "public_baseurl": f"{self.url}/",
            "report_stats": False,
            "signing_key": f"ed25519 a_1 {base64.b64encode(os.urandom(32)).decode().rstrip('=')}",
            "macaroon_secret_key": secrets.token_hex(16),
            "form_secret": secrets.token_hex(16),
            "registration_shared_secret": self.secret,
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "bcrypt_rounds": 4,
            "pid_file": str(folder / "synapse.pid"),
            "log_config": str(folder / "log.yaml"),
            "media_store_path": str(folder / "media"),
            "database": {"name": "sqlite3", "args": {"database": str(folder / "synapse.sqlite3")}},
            "listeners": [
                listener(int(self.url.rsplit(":", 1)[1]), "client"),
                {**listener(port, "federation"), "tls": True},
            ],
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(authority.pem)],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "presence": {"enabled": False},
            "allow_public_rooms_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            # A server that was away is asked again within the patience of a test.
            "federation": {
                "destination_min_retry_interval": "1s",
                "destination_retry_multiplier": 1,
                "destination_max_retry_interval": "2s",
                "max_short_retries": 1,
            },
            "rc_message": often,
            "rc_registration": often,
            "rc_login": {"address": often, "account": often, "failed_attempts": often},
            "rc_admin_redaction": often,
            "rc_joins": {"local": often, "remote": often},
            "rc_joins_per_room": often,
            "rc_invites": {"per_room": often, "per_user": often, "per_issuer": often},
            "rc_room_creation": often,
            "rc_federation": {"window_size": 1000, "sleep_limit": 10_000, "reject_limit": 10_000, "concurrent": 100},
        }
        # JSON is YAML.
        (folder / "homeserver.json").write_text(json.dumps(settings))

    def stop(self):
        """Asks the server to end. How it ends is its own affair."""
        self.process.terminate()
        self.process.wait(hearth.STOP_SECONDS)
        return None

    def extremities(self, room_id):
        found = self._ask(f"/_synapse/admin/v1/rooms/{room_id}/forward_extremities")
        return {one["event_id"] for one in found["results"]}

    def state(self, room_id, member):
        found = self._ask(f"/_synapse/admin/v1/rooms/{room_id}/state")
        return {(one["type"], one["state_key"]): one["event_id"] for one in found["state"]}

    def _ask(self, path):
        if not self.admin:
            self.admin = self._register_admin()
        answer = requests.get(self.url + path, headers={"Authorization": f"Bearer {self.admin}"}, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def _register_admin(self):
        import hashlib
        import hmac

        address = f"{self.url}/_synapse/admin/v1/register"
        nonce = requests.get(address, timeout=30).json()["nonce"]
        said = "\0".join([nonce, "admin", self.secret, "admin"]).encode()
        mac = hmac.new(self.secret.encode(), said, hashlib.sha1).hexdigest()
        body = {"nonce": nonce, "username": "admin", "password": self.secret, "admin": True, "mac": mac}
        answer = requests.post(address, json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()["access_token"]


def listener(port, resource):
    return {"port": port, "type": "http", "bind_addresses": ["127.0.0.1"], "resources": [{"names": [resource]}]}


def start(servers):
    """Starts servers side by side, as Synapse takes seconds."""
    for server in servers:
        server.launch()
    for server in servers:
        server.await_health()


