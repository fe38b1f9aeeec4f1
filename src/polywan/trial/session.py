"""Who sits at this terminal: the user, the ssh session, and when the server began to serve it."""

from __future__ import annotations

import getpass
import os
import pwd
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, Literal

from polywan.core.trial.deciding import Confirmer
from polywan.core.trial.session import Session, parse
from polywan.trial.processes import Ancestor, ancestors

_SERVERS: Final = ("sshd", "sshd-session", "sshd-auth", "dropbear")
_PROGRAMS: Final = range(136, 144)
"""Major numbers of pseudo terminals (pts(4))."""

_ESTABLISHED: Final = "01"
_NO_LOGIN: Final = (1 << 32) - 1
_BYTE_ORDER: Final[Literal["little", "big"]] = sys.byteorder


def user() -> str:
    """Return who asks: behind sudo or su, whoever logged in."""
    if name := os.environ.get("SUDO_USER"):
        return name
    with suppress(OSError, ValueError, KeyError):
        login = int(Path("/proc/self/loginuid").read_text("ascii"))
        if login != _NO_LOGIN:
            return pwd.getpwuid(login).pw_name
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"


def confirmer(environment: Mapping[str, str] | None = None) -> Confirmer:
    """Return who asks at this terminal, and since when the ssh server serves it."""
    server = _server()
    said = os.environ if environment is None else environment
    return Confirmer(
        user=user(),
        remote=server is not None or "SSH_CONNECTION" in said or in_window([one.terminal for one in ancestors()]),
        server_start=None if server is None else server.start,
    )


def in_window(terminals: Iterable[int]) -> bool:
    """True where a terminal is one of a program (tmux, screen, sudo), and none above it is a console or serial line.

    Such a program may have been started over a connection that tells nothing of the present one.
    """
    kinds = {os.major(terminal) in _PROGRAMS for terminal in terminals if terminal}
    return kinds == {True}


def here(environment: Mapping[str, str] | None = None) -> Session | None:
    """Return the ssh connection of this terminal; None on a console.

    The ssh server above us knows for sure; in a multiplexer, or without the right to look, SSH_CONNECTION may be old.
    """
    server = _server()
    if server is not None:
        with suppress(OSError, ValueError):
            for found in _connections(server.pid):
                return found
    said = os.environ if environment is None else environment
    with suppress(ValueError):
        return parse(said.get("SSH_CONNECTION", ""))
    return None


def _server() -> Ancestor | None:
    """Return the process of the ssh server that serves this terminal, and when it started.

    The nearest may be the part without rights, which started after the login; the next above it has the connection too,
    and the one that listens is no part of the session. So the highest that has the connection counts.
    """
    found = [one for one in ancestors() if one.name in _SERVERS]
    if not found:
        return None
    with suppress(OSError):
        connected = [one for one in found if next(_connections(one.pid), None) is not None]
        if connected:
            return connected[-1]
    return found[0]


def _connections(pid: int) -> Iterator[Session]:
    """Yield the TCP connections of a process."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in Path("/proc/net", name).read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == _ESTABLISHED and words[9] in inodes:
                    (local, local_port), (peer, peer_port) = map(_end, words[1:3])
                    yield parse(f"{peer} {peer_port} {local} {local_port}")


def _end(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Read an end as /proc/net/tcp has it: words of the address in the order of this machine's bytes (proc_net(5))."""
    address, port = text.split(":")
    packed = b"".join(int(address[n : n + 8], 16).to_bytes(4, _BYTE_ORDER) for n in range(0, len(address), 8))
    return (IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)), int(port, 16)
