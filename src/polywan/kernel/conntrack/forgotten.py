"""TCP connections that the kernel forgot by itself: put back for a moment, so that they end like all others.

When a device goes down, or loses an address, the kernel deletes what is masqueraded there, sooner than anybody can look
it up. ctnetlink tells of each deletion, with addresses, mark and state. An entry that is put back with the reserved
mark, which is dead while any mark is, makes clients meet the reset of `reject_dead` (core/ruleset/table.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import Final, NamedTuple

from polywan.core.net import Family
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.conntrack.challenge_ack import End
from polywan.kernel.conntrack.decode import Layouts
from polywan.kernel.netlink.bpf_filter import attach, between, marked, spontaneous
from polywan.kernel.netlink.socket import NETFILTER, NetlinkSocket, messages

RECENT: Final = 5.0
"""Seconds for which a connection that the kernel forgot is remembered; a verdict by carrier takes milliseconds."""

LASTING: Final = 3
"""Seconds for which an entry that was put back waits for its client; the uplink should not be back by then."""

MOST_FORGOTTEN: Final = 20_000
"""Connections that are remembered at once."""

_BUFFER: Final = 1 << 23
"""Receive buffer, which the kernel doubles: a burst of some 15 000 connections."""

_GLANCE: Final = 1000
"""Messages that are taken by whoever only keeps the buffer empty."""

_GROUP: Final = 3  # NFNLGRP_CONNTRACK_DESTROY, linux/netfilter/nfnetlink_compat.h


class ForgottenConnection(NamedTuple):
    """A connection that the kernel forgot: when we heard of it (monotonic seconds), and what was said."""

    at: float
    body: bytes


class RestoredConnections(NamedTuple):
    """What was put back: how many, and which addresses of their clients are, or were, this box's own."""

    connections: int
    own: frozenset[bytes]


class ForgottenConnections:
    """Remembers for a moment which open TCP connections the kernel forgot; `put_back` is for any thread at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._source: NetlinkSocket | None = None
        self._paused = False
        self._gone: deque[ForgottenConnection] = deque(maxlen=MOST_FORGOTTEN)

    def listen(self, mask: int) -> None:
        """Remember connections whose mark has a bit of the mask from now on; none with 0, which ends it.

        Raises:
            KernelError: the kernel does not let us listen.
        """
        with self._lock:
            if self._source is not None:
                self._source.close()
                self._source = None
            self._gone.clear()
            if mask == 0:
                return
            self._source = source = NetlinkSocket(NETFILTER)
            steps = [*spontaneous(), *marked(conntrack.MARK, mask)]
            attach(source, [*steps, *between(conntrack.TCP_STATE, *conntrack.OPEN_STATES)])
            source.bear_loss(_BUFFER)
            source.subscribe([_GROUP])
            self._paused = False

    def pause(self, *, paused: bool) -> None:
        """Have the kernel tell nothing for a while, or go on."""
        if self._source is not None and paused is not self._paused:
            self._paused = paused
            (self._source.unsubscribe if paused else self._source.subscribe)([_GROUP])

    def fileno(self) -> int:
        """File descriptor that can be read when there is something to `keep`; -1 while nothing is listened to."""
        return -1 if self._source is None else self._source.fileno()

    def keep(self) -> None:
        """Make room for what is told next: take what is there, but not for long, and do not wait for `put_back`."""
        if self._lock.acquire(blocking=False):
            try:
                self._take(_GLANCE)
            finally:
                self._lock.release()

    def put_back(
        self, mark: int, mask: int, family: Family, exempt: Collection[bytes] = frozenset()
    ) -> RestoredConnections:
        """Put back what vanished of a mark in a family of late, with the reserved mark.

        Args:
            mark: theirs, under `mask`.
            mask: bits of the mark that are ours.
            family: theirs.
            exempt: addresses of either end whose connections are not put back where they were not translated.

        Raises:
            KernelError: the kernel refused.
        """
        layouts = Layouts()

        def wanted(gone: ForgottenConnection) -> bool:
            return layouts.of(gone.body).family is family and (layouts.mark(gone.body) ^ mark) & mask == 0

        with self._lock:
            self._take(MOST_FORGOTTEN)
            bodies = [gone.body for gone in self._gone if wanted(gone)]
            self._gone = deque((gone for gone in self._gone if not wanted(gone)), MOST_FORGOTTEN)
        ends = [conntrack.ends_of(layouts.of(body).read(body)) for body in bodies]
        meant = [body for body, (one, other) in zip(bodies, ends, strict=True) if not _of(exempt, one, other)]
        own = frozenset(one.address for one, other in ends if one and other and one.address == other.peer)
        return RestoredConnections(conntrack.restore(meant, mask, LASTING), own)

    def _take(self, most: int) -> None:
        now = time.monotonic()
        while self._gone and self._gone[0].at < now - RECENT:
            self._gone.popleft()
        if self._source is not None:
            with suppress(BlockingIOError):
                for _ in range(most):
                    self._gone.extend(
                        ForgottenConnection(now, message.body) for message in messages(self._source.receive_now())
                    )


def _of(addresses: Collection[bytes], one: End | None, other: End | None) -> bool:
    """True when either end has one of these addresses and nobody translated it."""
    if one is None or other is None:
        return False
    ends = ((one.address, other.peer), (other.address, one.peer))
    return any(address == seen and address in addresses for address, seen in ends)
