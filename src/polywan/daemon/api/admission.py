"""Who may open one more connection to the control socket: nobody can take a descriptor that the daemon needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MOST_PEERS: Final = 192
"""Connections at once, of everybody."""

EACH: Final = 8
"""Connections at once of one user who may only read."""

ROOT_PEERS: Final = 32
"""Of `MOST_PEERS`, those that only root and the daemon's user can have."""

PAGE_PEERS: Final = 112
"""Of `MOST_PEERS`, those of the web page's process: a stream for each of a hundred visitors, and their questions."""

READER_PEERS: Final = MOST_PEERS - ROOT_PEERS - PAGE_PEERS
"""Of `MOST_PEERS`, those of all others who may only read."""

SPARE: Final = 32
"""Descriptors that stay free for probes, lists and questions to the kernel, whoever connects."""

SPARE_FROM_WRITERS: Final = 8
"""The same where root or the daemon's user connects: the administrator has to get in when descriptors are short."""


def refusal(
    uid: int, writers: tuple[int, ...], connected: Mapping[int, int], free: int, page: int | None = None
) -> str | None:
    """Return why a user may not connect now, None if he may.

    Args:
        uid: whose connection it is.
        writers: users who may change things.
        connected: connections of each user, without this one.
        free: descriptors that are left once this connection has its own.
        page: user of the web page's process; None without one.
    """
    writer = uid in writers
    if free < (SPARE_FROM_WRITERS if writer else SPARE):
        return "polywan is short of file descriptors: raise LimitNOFILE=, or close connections to this socket"
    if sum(connected.values()) >= MOST_PEERS:
        return f"{MOST_PEERS} connections to this socket are open, no more are allowed: close some"
    if writer:
        return None
    most = PAGE_PEERS if uid == page else EACH
    if connected.get(uid, 0) >= most:
        return f"user {uid} has {most} connections to this socket, no more are allowed: close some"
    readers = sum(count for user, count in connected.items() if user not in (*writers, page))
    if uid != page and readers >= READER_PEERS:
        return f"{READER_PEERS} connections to this socket are open, the rest is reserved for root: close some"
    return None
