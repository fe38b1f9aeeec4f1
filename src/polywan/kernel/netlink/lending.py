"""Sockets of nfnetlink that stay open for the next question.

Whenever one of them is closed, by whomever, the kernel looks for tables that belong to it. Before that it waits until
everything that the last transactions have removed is freed (``nft_rcv_nl_event``): 10 to 20 ms for rules and more for a
flowtable, and meanwhile no transaction begins. In the middle of a failover nobody has that time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from polywan.core.errors import KernelError
from polywan.kernel.netlink.socket import NETFILTER, NetlinkSocket

_MOST: Final = 4
"""Sockets that are kept; more questions at a time are rare."""


@dataclass(slots=True)
class _Idle:
    users: int = 0
    sockets: list[NetlinkSocket] = field(default_factory=list)


_lock: Final = threading.Lock()
_idle: Final[dict[int, _Idle]] = {}


def namespace() -> int:
    """Return what tells the network namespace of the calling thread from others."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def keep() -> int:
    """Keep sockets of this namespace from now on, until `close` is called as often; return what to tell it.

    All of them are opened at once: what a process has open does not grow with time.
    """
    here = namespace()
    with _lock:
        idle = _idle.setdefault(here, _Idle())
        idle.users += 1
        with suppress(KernelError):  # whoever asks something hears of it
            idle.sockets += [NetlinkSocket(NETFILTER) for _ in range(_MOST - len(idle.sockets))]
    return here


def close(here: int) -> None:
    """Keep no more sockets of that namespace, unless others still want it."""
    with _lock:
        idle = _idle[here]
        idle.users -= 1
        closing = () if idle.users else _idle.pop(here).sockets
    for netlink in closing:
        netlink.close()


@contextmanager
def netfilter() -> Iterator[NetlinkSocket]:
    """Lend a socket of nfnetlink in the calling thread's namespace; where none are kept, it is closed afterwards.

    Raises:
        KernelError: this kernel does not speak the protocol.
    """
    here = namespace()
    with _lock:
        idle = _idle.get(here)
        netlink = idle.sockets.pop() if idle is not None and idle.sockets else None
    netlink = netlink or NetlinkSocket(NETFILTER)
    try:
        yield netlink
    finally:
        with _lock:
            idle = _idle.get(here)
            again = idle is not None and netlink.quiet and len(idle.sockets) < _MOST
            if idle is not None and again:
                idle.sockets.append(netlink)
        if not again:
            netlink.close()
