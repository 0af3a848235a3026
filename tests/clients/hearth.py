"""A Hearth of its own for a run of clients: a free port, an empty data folder, open registration."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

START_SECONDS = 30
STOP_SECONDS = 15


class Trouble(Exception):
    """The server did not do what a server has to do; the message says what."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    # So that a Ctrl-C reaches the tests alone, who stop it. Those that may be killed have it in their own group.
    start_new_session = True
    start_seconds = START_SECONDS

    def __init__(self, binary, folder, database, redis=None, media=None):
        port = free_port()
        self.command, self.folder, self.process = [binary, "serve"], folder, None
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "hearth.log"
        # Settings of whoever runs the tests must not reach this server.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
        self.environment |= {
            "HEARTH_SERVER_NAME": "localhost",
            "HEARTH_DATA_DIR": str(folder / "data"),
            "HEARTH_LISTEN": f'["127.0.0.1:{port}"]',
            "HEARTH_REGISTRATION__MODE": "open",
            "HEARTH_RATE_LIMITS__ENABLED": "false",
            "RUST_BACKTRACE": "1",
        }
        if database != "sqlite":
            self.environment["HEARTH_DATABASE__URL"] = database
        if redis:
            self.environment["HEARTH_REDIS__URL"] = redis
        if media:
            # A string of JSON is one of TOML.
            store = f'{{ name = "files", path = {json.dumps(str(media))} }}'
            self.environment["HEARTH_MEDIA__STORES"] = f"[{store}]"

    def start(self):
        """Starts the server and waits until it says that it is healthy."""
        self.launch()
        self.await_health()

    def launch(self):
        """Starts the server. If it ran before, its log goes on."""
        with self.log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    self.command,
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=self.start_new_session,
                )
            except OSError as error:
                raise Trouble(f"cannot start {self.command[0]}: {error.strerror}; build it first") from error

    def await_health(self):
        deadline = time.monotonic() + self.start_seconds
        while not self._healthy():
            if self.process.poll() is not None:
                raise Trouble(f"ended with {self.process.returncode} before it was healthy")
            if time.monotonic() > deadline:
                raise Trouble(f"did not answer {self.url}/health with 200 within {self.start_seconds} s")
            time.sleep(0.05)

    def _healthy(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self):
        """Asks the server to end and returns what was wrong with how it did, or with how it ran."""
        ended_early = self.process.poll()
        if ended_early is not None:
            return f"ended by itself with {ended_early} while the clients were using it"
        self.process.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return f"still ran {STOP_SECONDS} s after SIGTERM"
        if code != 0:
            return f"ended with {code} after SIGTERM, not with 0"
        if b"panicked at" in self.log.read_bytes():
            return "panicked while the clients were using it"
        return None

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log_tail(self, lines=60):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(["the end of its log:", *text.splitlines()[-lines:]])


class Cluster:
    """
    Several nodes of one server over one PostgreSQL, one Redis and one folder of media; all answer, none is before the
    others.
    """

    def __init__(self, binary, folder, database, redis, nodes=3):
        self.nodes = []
        for number in range(nodes):
            home = folder / f"node{number + 1}"
            home.mkdir()
            self.nodes.append(Server(binary, home, database, redis, folder / "media"))
        self.url = self.nodes[0].url
        self.urls = [node.url for node in self.nodes]

    def start(self):
        for node in self.nodes:
            node.start()

    def stop(self):
        """Asks all nodes to end and returns what was wrong with any of them."""
        complaints = [(number, node.stop()) for number, node in enumerate(self.nodes, 1)]
        return "; ".join(f"node {number} {complaint}" for number, complaint in complaints if complaint) or None

    def kill(self):
        for node in self.nodes:
            node.kill()

    def log_tail(self, lines=30):
        return "\n".join(f"node {number}: {node.log_tail(lines)}" for number, node in enumerate(self.nodes, 1))
