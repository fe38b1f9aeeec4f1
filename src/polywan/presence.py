"""Who runs in this network namespace: one daemon, told by names that the kernel keeps for the namespace.

Abstract unix sockets (unix(7)) belong to a network namespace and vanish with their process, however it ends. So one
name there is the lock, whatever file systems the two programs see; a second name says who holds it, since
/proc/self/net/unix shows names to everybody.

Anybody may take these names, and say anything in them. So the kernel is asked whose a name is.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import struct
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

# linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_UDIAG_SHOW_UID, _UNIX_DIAG_UID = 0x40, 7
_MESSAGE: Final = struct.Struct("=IHHII")
_QUESTION: Final = struct.Struct("=BBHIIIII")
_ANSWER_SIZE: Final = 16
_ANY: Final = 0xFFFF_FFFF
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
        if (match := _OWNER_NAME.search(line)) and int(match["pid"]) != os.getpid():
            pid = int(match["pid"])
            if _may_hold(pid, _owner(int(line.split()[6]))):
                return Presence(pid, Path(match["directory"]))
    return None


def _may_hold(pid: int, owner: int | None) -> bool:
    """True unless it is a program that cannot change networking: anybody may take a name, so as to be in the way.

    Args:
        pid: the process that a name tells.
        owner: the user whose name it is; None where the kernel does not tell.
    """
    process = Path("/proc", str(pid))
    ours = owner in (None, 0, os.geteuid())
    try:
        status = (process / "status").read_text("utf-8")
        users = (process / "uid_map").read_text("ascii")
        own_users = Path("/proc/self/uid_map").read_text("ascii")
    except OSError:
        # Of another pid namespace, as in a container that shares this network; or hidden from us.
        return ours
    rights = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    # In a user namespace of its own a process has every right, and none over this network.
    if (rights and not int(rights[1], 16) >> _NET_ADMIN & 1) or users != own_users:
        return False
    return ours or re.search(rf"^Uid:\t{owner}\t", status, re.MULTILINE) is not None


def _owner(inode: int) -> int | None:
    """Return the user who made a unix socket (sock_diag(7)); None where the kernel does not tell."""
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ANY, inode, _UDIAG_SHOW_UID, _ANY, _ANY)
    head = _MESSAGE.pack(_MESSAGE.size + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
            kernel.sendto(head + question, (0, 0))
            answer = kernel.recv(4096, socket.MSG_DONTWAIT)
    except OSError:
        return None
    if len(answer) < _MESSAGE.size or _MESSAGE.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    place = _MESSAGE.size + _ANSWER_SIZE
    while place + 8 <= len(answer):
        size, kind, value = struct.unpack_from("=HHI", answer, place)
        if kind == _UNIX_DIAG_UID:
            return int(value)
        place += max(4, size + 3 & ~3)
    return None


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
