"""What the daemon's user, taken over, may put in the place of its files: root's verbs are led nowhere and go on."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IFBLK, S_IFCHR

import pytest

from polywan.lab.network import Lab, build
from polywan.lab.scenario import configuration
from support.fork_server import ForkServer
from support.users import SERVICE

pytestmark = pytest.mark.needs("root")

HOME = Path("/run/polywan-hostile")
RUN, STATE, PRECIOUS, NEW, ELSEWHERE = (HOME / n for n in ("run", "state", "precious", "new", "elsewhere.sock"))
SECRET = "root:$6$secret:\x1b]0;x\x07\n"

VERBS: dict[str, list[str]] = {
    "run": ["run", "--config", str(HOME / "polywan.toml"), "--runtime-dir", str(RUN), "--state-dir", str(STATE)],
    "status": ["status", "--runtime-dir", str(RUN)],
    "events": ["events", "--runtime-dir", str(RUN)],
    "plan": ["plan", "--config", str(HOME / "polywan.toml"), "--runtime-dir", str(RUN), "--state-dir", str(STATE)],
    "doctor": ["doctor", "--config", str(HOME / "polywan.toml"), "--runtime-dir", str(RUN), "--state-dir", str(STATE)],
    "down": ["down", "--runtime-dir", str(RUN), "--state-dir", str(STATE)],
    "web token add": ["web", "token", "add", "phone", "--state-dir", str(STATE)],
    "web token list": ["web", "token", "list", "--state-dir", str(STATE)],
}
"""Each verb by which root opens something there."""

OPENED_BY = {
    "the lock": ("run", "down"),
    "the socket": ("run", "status", "events", "plan", "down"),
    "the memory": ("run", "plan", "down"),
    "the history": ("run", "down"),
    "the use of quotas": ("run", "plan", "down"),
    "the journal": ("run", "doctor", "down"),
    "what belongs to the journal": ("run", "doctor", "down"),
    "the tokens of the page": ("web token add", "web token list"),
    "the measurements": ("run", "down"),
    "what belongs to the measurements": ("run", "down"),
}
"""The verbs that open it; `down` last, since it removes what `run` has left in the kernel."""

FILES = {
    "the lock": [RUN / "lock"],
    "the socket": [RUN / "control.sock"],
    "the memory": [STATE / "memory.json"],
    "the history": [STATE / f"history.json{end}" for end in ("", ".aside")],
    "the use of quotas": [STATE / f"quota.json{end}" for end in ("", ".aside")],
    "the journal": [STATE / f"events.db{end}" for end in ("", ".aside")],
    "what belongs to the journal": [
        STATE / f"events.db{end}" for end in ("-journal", "-wal", "-shm", "-journal.aside")
    ],
    "the tokens of the page": [STATE / "tokens.json", STATE / "last-used.json"],
    "the measurements": [STATE / f"measurements.db{end}" for end in ("", ".aside")],
    "what belongs to the measurements": [
        STATE / f"measurements.db{end}" for end in ("-journal", "-wal", "-shm", "-journal.aside")
    ],
}


def foreign(path: Path) -> None:
    path.write_text(SECRET)
    os.chown(path, SERVICE + 1, SERVICE + 1)
    path.chmod(0o600)


def vast(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def nonsense(path: Path) -> None:
    path.write_bytes(b"\x1b[2J\0\xff" * 100_000)


def socket_of_another(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


THINGS: dict[str, Callable[[Path], None]] = {
    "a link to a file of root's": lambda path: path.symlink_to(PRECIOUS),
    "a link to nothing": lambda path: path.symlink_to(NEW),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a directory": lambda path: path.symlink_to("/"),
    "a link to a listening socket": lambda path: path.symlink_to(ELSEWHERE),
    "a second name of a file of root's": lambda path: path.hardlink_to(PRECIOUS),
    "a pipe": os.mkfifo,
    "a device without an end": lambda path: os.mknod(path, 0o666 | S_IFCHR, os.makedev(1, 5)),
    "a disk": lambda path: os.mknod(path, 0o666 | S_IFBLK, os.makedev(253, 250)),
    "a directory": lambda path: (path / "x").mkdir(parents=True),
    "a socket": socket_of_another,
    "a file of a third user": foreign,
    "a file of a terabyte": vast,
    "nonsense": nonsense,
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with build(1) as made:
        yield made


@pytest.fixture
def listener(lab: Lab) -> Iterator[socket.socket]:
    """A socket of root's that no client is to be led to; and everything else of these tests."""
    shutil.rmtree(HOME, ignore_errors=True)
    for made in (HOME, RUN, STATE):
        made.mkdir()
    PRECIOUS.write_text(SECRET)
    PRECIOUS.chmod(0o600)
    (HOME / "polywan.toml").write_text(configuration(lab.topology, (1,)))
    for path in (RUN, STATE):
        os.chown(path, SERVICE, SERVICE)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(ELSEWHERE))
        sock.listen()
        sock.setblocking(False)
        yield sock


def carried_out(lab: Lab, server: ForkServer, verb: str) -> tuple[int, str]:
    """Carry out a verb as root; `run` is ended once it is ready. Return its status and what it said."""
    process = server.start(lab.router, VERBS[verb])
    assert process.stderr is not None
    said = ""
    with process.stderr as stderr:
        for line in stderr:
            said += line
            if verb == "run" and " ready: " in line:
                process.send_signal(signal.SIGTERM)
    return process.wait(15.0), said


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("place", FILES)
def test_whatever_is_in_the_place_of_a_file_roots_verbs_touch_nothing_else_and_end(
    lab: Lab, fork_server: ForkServer, listener: socket.socket, place: str, thing: str
) -> None:
    if place.startswith("what belongs to"):
        carried_out(lab, fork_server, "run")
    for path in FILES[place]:
        THINGS[thing](path)
    before = PRECIOUS.stat()
    for verb in OPENED_BY[place]:
        began = time.monotonic()
        status, said = carried_out(lab, fork_server, verb)
        assert "Traceback" not in said
        assert "internal" not in said
        assert said.replace("\n", "").isprintable()
        assert status in range(10), verb
        if verb == "run" and STATE in FILES[place][0].parents:
            assert " ready: " in said
        assert time.monotonic() - began < 10, verb
    after = PRECIOUS.stat()
    assert PRECIOUS.read_text() == SECRET
    kept = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_ino")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert not NEW.exists()
    with pytest.raises(BlockingIOError):
        listener.accept()
