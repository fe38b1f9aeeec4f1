"""Who may do what by the control socket: every call of the table, by every kind of user, to a running daemon."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from polywan.api.calls import CALLS, DOWN, STREAMS, Call, Stream
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import build
from polywan.lab.scenario import configuration
from support.page_user import PAGE, with_page_user
from support.users import SERVICE, User, as_the_service

pytestmark = pytest.mark.needs("root")

ROOT = User("root", 0)
DAEMON = User("the daemon's user", SERVICE)
MEMBER = User("a member of the group", 4712, (SERVICE,))
CONTAINED_MEMBER = User("a member who is root in a container", 4712, (SERVICE,), contained=True)
OTHER = User("another user", 4713)
CONTAINED_OTHER = User("another user who is root in a container", 4713, contained=True)

WRITERS = (ROOT, DAEMON)
READERS = (MEMBER, CONTAINED_MEMBER)
OUTSIDERS = (OTHER, CONTAINED_OTHER)
CARRIED_OUT = frozenset({200, 400, 404})
"""What a call is answered with that asks for nothing sensible, once it is allowed."""

ASK = """
import http.client, json, socket, sys
path, requests = sys.argv[1], json.loads(sys.argv[2])
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(path)
found = []
for method, url, body in requests:
    try:
        connection = Connection("x")
        connection.request(method, url, body)
        found.append(connection.getresponse().status)
    except OSError as error:
        found.append(-error.errno)
print(json.dumps(found))
"""
"""Prints the HTTP status of each answer, or the negative number of the error that connecting ended with."""

MEDDLE = """
import errno, json, os, socket, sys
run, state = sys.argv[1], sys.argv[2]
def bind():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(run + "/control.sock")
tries = {
    "remove the socket": lambda: os.unlink(run + "/control.sock"),
    "replace the socket": lambda: os.rename(run + "/control.sock", run + "/x"),
    "open the socket to others": lambda: os.chmod(run + "/control.sock", 0o666),
    "bind the socket": bind,
    "write the lock": lambda: os.open(run + "/lock", os.O_WRONLY),
    "remove the lock": lambda: os.unlink(run + "/lock"),
    "make a file beside the socket": lambda: os.open(run + "/x", os.O_CREAT | os.O_WRONLY),
    "move the runtime directory": lambda: os.rename(run, run + ".x"),
    "look into the state directory": lambda: os.listdir(state),
    "read the memory": lambda: os.open(state + "/memory.json", os.O_RDONLY),
    "make a file in the state directory": lambda: os.open(state + "/x", os.O_CREAT | os.O_WRONLY),
}
found = {}
for name, attempt in tries.items():
    try:
        attempt()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def daemon(users: None) -> Iterator[DaemonProcess]:
    with build(2) as lab:
        directory = Path("/run/polywan-rights")
        daemon = DaemonProcess(lab.router, configuration(lab.topology, (1, 1)), directory, as_the_service)
        daemon.state.chmod(0o700)
        for path in (directory, daemon.state):
            os.chown(path, SERVICE, SERVICE)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            assert daemon.troubles == []


@pytest.fixture(autouse=True, scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with with_page_user(tmp_path_factory.mktemp("users")):
        yield


def asked(call: Call[Any, Any] | Stream[Any]) -> tuple[str, str, str | None]:
    """Return a request that changes nothing, also where it is carried out."""
    if isinstance(call, Stream):
        return "GET", call.path, None
    path = call.path.replace("{name:path}", "nonexistent").replace("{what}", "nonexistent")
    return call.method, path, "{}" if call.body else None


def answers(daemon: DaemonProcess, user: User, wanted: Sequence[Call[Any, Any] | Stream[Any]]) -> dict[str, int]:
    """Return what a user gets for each call, by its method and path."""
    requests = [asked(call) for call in wanted]
    statuses = user.run(ASK, str(daemon.runtime / "control.sock"), value=requests)
    named = [f"{request[0]} {call.path}" for request, call in zip(requests, wanted, strict=True)]
    return dict(zip(named, statuses, strict=True))


@pytest.mark.parametrize("user", WRITERS, ids=lambda user: user.name)
def test_root_and_the_daemons_user_may_call_everything(daemon: DaemonProcess, user: User) -> None:
    found = answers(daemon, user, [*(call for call in CALLS if call is not DOWN), *STREAMS])
    assert {call: status for call, status in found.items() if status not in CARRIED_OUT} == {}


def test_the_user_of_the_page_may_read_and_act_and_manage_nothing(daemon: DaemonProcess) -> None:
    found = answers(daemon, PAGE, CALLS)
    managing = {f"{call.method} {call.path}" for call in CALLS if call.right == "manage"}
    assert {call for call, status in found.items() if status == 403} == managing
    assert {status for call, status in found.items() if call not in managing} <= CARRIED_OUT
    assert "POST /v1/down" in managing
    assert "POST /v1/reload" in managing
    assert "POST /v1/uplinks/{name:path}/disable" not in managing


@pytest.mark.parametrize("user", READERS, ids=lambda user: user.name)
def test_members_of_the_group_may_read_and_change_nothing(daemon: DaemonProcess, user: User) -> None:
    generation = daemon.status().generation
    found = answers(daemon, user, [*CALLS, *STREAMS])
    assert {call for call, status in found.items() if status == 403} == {call for call in found if "POST" in call}
    assert {status for call, status in found.items() if "GET" in call} <= CARRIED_OUT
    assert daemon.status().generation == generation


@pytest.mark.parametrize("user", OUTSIDERS, ids=lambda user: user.name)
def test_other_users_cannot_even_connect(daemon: DaemonProcess, user: User) -> None:
    assert set(answers(daemon, user, [*CALLS, *STREAMS]).values()) == {-errno.EACCES}


def test_the_socket_and_its_directory_have_the_modes_that_this_rests_on(daemon: DaemonProcess) -> None:
    socket, directory = (daemon.runtime / "control.sock").stat(), daemon.runtime.stat()
    assert (socket.st_mode & 0o777, socket.st_uid, socket.st_gid) == (0o660, SERVICE, SERVICE)
    assert (directory.st_mode & 0o022, directory.st_uid) == (0, SERVICE)


@pytest.mark.parametrize("user", [*READERS, *OUTSIDERS], ids=lambda user: user.name)
def test_neither_members_nor_others_can_put_anything_in_the_place_of_the_daemons_files(
    daemon: DaemonProcess, user: User
) -> None:
    before = {path: path.lstat() for path in (daemon.runtime / "control.sock", daemon.runtime / "lock")}
    found = user.run(MEDDLE, str(daemon.runtime), str(daemon.state))
    assert {name: how for name, how in found.items() if how not in ("EACCES", "EPERM", "EADDRINUSE")} == {}
    for path, was in before.items():
        assert os.path.samestat(path.lstat(), was)


def test_the_daemons_user_may_end_it(daemon: DaemonProcess) -> None:
    assert set(answers(daemon, DAEMON, [DOWN]).values()) == {200}
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0
    daemon.process = None
    assert "polywan" not in daemon.namespace.run(["nft", "list", "tables"]).stdout
    daemon.start()
