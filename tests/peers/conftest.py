"""The two servers, people on them, and what both have to agree about when a test is over."""

import os
import pathlib
import time

import pytest

from person import PATIENCE, Person, Refused
from servers import Authority, Hearth, Synapse, start

VERSIONS = ["10", "11", "12"]


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Both servers, running, by what they are; with no Hearth to test, two Synapses, which tests the tests."""
    folder = tmp_path_factory.mktemp("peers")
    folders = {name: folder / name for name in ("hearth", "synapse")}
    for one in folders.values():
        one.mkdir()
    authority = Authority(folder)
    binary = os.environ.get("HEARTH_BINARY")
    hearth = Hearth(pathlib.Path(binary), folders["hearth"], authority) if binary else None
    both = {"hearth": hearth or Synapse(folders["hearth"], authority), "synapse": Synapse(folders["synapse"], authority)}
    try:
        start(both.values())
        yield both
        complaints = {name: server.stop() for name, server in both.items()}
        assert not any(complaints.values()), complaints
    finally:
        for server in both.values():
            server.kill()


@pytest.fixture(scope="session")
def messages():
    """How many messages are sent while a server is away."""
    return int(os.environ.get("HEARTH_PEERS_MESSAGES", "200"))


class Sides:
    """Who makes a room, and who comes into it from the other server."""

    def __init__(self, servers, maker, version):
        self.version = version
        self.here = servers[maker]
        self.there = servers["synapse" if maker == "hearth" else "hearth"]

    def people(self, *names):
        """Those with a name that begins with a capital are where rooms are made, the others at the other server."""
        return [Person(self.here if name[0].isupper() else self.there, name.lower()) for name in names]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture(params=["hearth", "synapse"])
def maker(request):
    return request.param


@pytest.fixture
def sides(servers, maker, version):
    return Sides(servers, maker, version)


def forbidden(what):
    """Runs something that has to be refused, and returns how."""
    with pytest.raises(Refused) as caught:
        what()
    # Synapse says M_BAD_STATE to one who is banned.
    assert caught.value.status == 403 and caught.value.errcode in ("M_FORBIDDEN", "M_BAD_STATE"), caught.value
    return caught.value


def settle(room, *members):
    """Waits until the servers of these members have the same state of a room, and the same events at its end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        states = [member.server.state(room, member) for member in members]
        ends = [member.server.extremities(room) for member in members]
        if all(one == states[0] for one in states) and all(one == ends[0] and one for one in ends):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    said = []
    for member, end in zip(members, ends, strict=True):
        said.append(f"{member.server.software} ends with {sorted(end)}")
    for key in sorted({key for state in states for key in state}):
        if len({state.get(key) for state in states}) > 1:
            said.append(f"{key}: " + ", ".join(f"{m.server.software} {s.get(key)}" for m, s in zip(members, states)))
    pytest.fail("\n".join(["the servers differ about " + room, *said]))
