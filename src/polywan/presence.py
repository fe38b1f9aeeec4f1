"""Who runs in this network namespace: one daemon, told by names that the kernel keeps for the namespace.

Abstract unix sockets (unix(7)) belong to a network namespace and vanish with their process, however it ends. So one
name there is the lock, whatever file systems the two programs see; a second name says who holds it, since
/proc/self/net/unix shows names to everybody.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polywan.core.errors import BusyError

log = logging.getLogger("polywan")

_LOCK: Final = "\0polywan"
_OWNER_NAME: Final = re.compile(r" @polywan:(?P<pid>[0-9]{1,10}):(?P<directory>/.*)$")
_NAMES: Final = Path("/proc/self/net/unix")
_NET_ADMIN: Final = 12
_LONGEST: Final = 107


@dataclass(frozen=True, slots=True)
class Presence:
    """A daemon of this network namespace: process id and runtime directory, both as it sees them."""

    pid: int
    runtime_dir: Path


def namespace() -> str:
    """Return what tells this process's network namespace from others."""
    seen = Path("/proc/self/ns/net").stat()
    return f"{seen.st_dev}:{seen.st_ino}"


def found() -> Presence | None:
    """Return the daemon of this network namespace, if one runs."""
    try:
        lines = _NAMES.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if (match := _OWNER_NAME.search(line)) and int(match["pid"]) != os.getpid() and _may_hold(int(match["pid"])):
            return Presence(int(match["pid"]), Path(match["directory"]))
    return None


def _may_hold(pid: int) -> bool:
    """True unless it is a program that cannot change networking: anybody may take a name, so as to be in the way."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        # Of another pid namespace, as in a container that shares this network.
        return True
    rights = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return rights is None or bool(int(rights[1], 16) >> _NET_ADMIN & 1)


@contextmanager
def only_one(runtime_dir: Path) -> Iterator[None]:
    """Be the daemon of this network namespace for as long as the context lasts.

    Raises:
        BusyError: another one is.
    """
    with ExitStack() as stack:
        text = f"\0polywan:{os.getpid()}:{runtime_dir.absolute()}"
        # Told first, so that whoever finds the lock taken finds by whom.
        for name in (text.encode()[:_LONGEST].decode("utf-8", "ignore"), _LOCK):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            try:
                sock.bind(name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if (other := found()) is not None:
                    raise BusyError(_busy(other)) from None
                log.warning("presence.taken: another program uses the socket name @polywan")
        yield


def _busy(other: Presence) -> str:
    return (
        f"another daemon (pid {other.pid}, runtime directory {other.runtime_dir}) runs in this network namespace, and "
        f"two would undo each other's work: stop that one first, or talk to it with "
        f"--runtime-dir {other.runtime_dir}"
    )
