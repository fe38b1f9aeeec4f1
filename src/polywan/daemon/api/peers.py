"""Whose the connections of the control socket are (SO_PEERCRED, unix(7)), and which of them may come in."""

from __future__ import annotations

import logging
import os
import pwd
import resource
import socket
import struct
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

from polywan.api.calls import Right
from polywan.daemon.api.admission import refusal
from polywan.serving import Entrance

log = logging.getLogger("polywan")

PAGE_USER: Final = "polywan-web"

asking: Final = ContextVar("asking", default=0)
"""User of the connection whose request is being answered; root where nothing asks, as at a signal."""

_UCRED: Final = struct.Struct("3i")


def user_of(connection: socket.socket) -> int:
    """Return the user id of the other end's process."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def writers() -> tuple[int, int]:
    """Return the users who may change things: root and the daemon's own."""
    return 0, os.geteuid()


def may(uid: int, right: Right) -> bool:
    """True when a user may make calls that need a right."""
    return right == "read" or uid in writers() or (right == "act" and uid == page_user())


@cache
def page_user() -> int | None:
    """Return the user of the web page's process; None on a machine without one."""
    try:
        return pwd.getpwnam(PAGE_USER).pw_uid
    except KeyError:
        return None


def entrance(listener: socket.socket, user: Callable[[socket.socket], int] = user_of) -> Entrance:
    """Return the way in by the control socket; the application finds the user in `state.uid` of the scope."""
    return Entrance(listener, lambda connection: {"uid": user(connection)}, _refuse)


def refused(why: str) -> None:
    """Log why a client could not connect."""
    log.warning("control.refused: %s", why)


def _refuse(connection: socket.socket, peer: Mapping[str, Any], others: Collection[Mapping[str, Any]]) -> str | None:
    connected = Counter(int(other["uid"]) for other in others)
    return refusal(peer["uid"], writers(), connected, _free(connection), page_user())


def _free(newest: socket.socket) -> int:
    """Return how many descriptors are left: the kernel gives the lowest number that is free."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (1 << 30 if limit == resource.RLIM_INFINITY else limit) - newest.fileno() - 1
