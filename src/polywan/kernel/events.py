"""Kernel notifications as events, without what we did ourselves: rtnetlink(7) and the nftables group."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

from polywan.core.errors import KernelError
from polywan.core.state.events import (
    EventsLost,
    ForeignStateChanged,
    KernelEvent,
    LinkChanged,
    LinkRemoved,
    OwnStateChanged,
)
from polywan.core.world.observed import Link
from polywan.core.world.shared_device import NextHop
from polywan.kernel.netlink.foreign_routing import TableKey
from polywan.kernel.netlink.own_port import own_netfilter_port
from polywan.kernel.netlink.socket import NETFILTER, ROUTE, Message, NetlinkSocket, messages
from polywan.kernel.notifications import Translator

# Multicast groups (linux/rtnetlink.h, linux/netfilter/nfnetlink.h).
_ROUTE_GROUPS: Final = (
    1,  # LINK
    5,  # IPV4_IFADDR
    9,  # IPV6_IFADDR
    7,  # IPV4_ROUTE
    11,  # IPV6_ROUTE
    8,  # IPV4_RULE
    19,  # IPV6_RULE
    32,  # NEXTHOP
    24,  # IPV4_NETCONF
    25,  # IPV6_NETCONF
)
_NEIGHBOURS: Final = 3
_NFTABLES_GROUPS: Final = (7,)
_QUEUE_GROUPS: Final = (4,)  # TC

_READS: Final = 64
"""Datagrams read before others get their turn on the loop."""

_Translate: TypeAlias = Callable[[Message], list[KernelEvent]]


class NetlinkWatch:
    """Subscribes when constructed, in the thread of a running loop, and tells of events until it is closed.

    Attributes:
        ended: done after `close`; whoever cancels it hears nothing more. Its error is why nothing can be heard.

    Raises:
        KernelError: the kernel refused the subscription.
    """

    def __init__(
        self,
        own_port: int,
        links: Callable[[], Iterable[Link]],
        touch: Callable[[int | bytes | None], None],
        tell: Callable[[KernelEvent], None],
    ) -> None:
        self._links = links
        self._touch = touch
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._route = NetlinkSocket(ROUTE, _ROUTE_GROUPS)
        try:
            self._nft = NetlinkSocket(NETFILTER, _NFTABLES_GROUPS)
        except KernelError:
            self._route.close()
            raise
        self._translator = Translator(own_port, own_netfilter_port, links(), touch)
        self._missed = False
        self._released = False
        self._queues = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.ended.add_done_callback(lambda _: self._release())
        for source in (self._route, self._nft):
            self._loop.add_reader(source, self._take)

    def know_tables(self, tables: frozenset[TableKey]) -> None:
        """Tell of every route of these tables from now on; may be called from any thread."""
        self._translator.tables = tables

    def know_hops(self, hops: frozenset[NextHop]) -> None:
        """Tell when one of these routers has another hardware address; may be called from any thread.

        Nobody listens to neighbours otherwise: a router with a large LAN would wake for each of its hosts.
        """
        if bool(hops) is not bool(self._translator.hops):
            with suppress(OSError):  # closed meanwhile
                (self._route.subscribe if hops else self._route.unsubscribe)((_NEIGHBOURS,))
        self._translator.hops = hops

    def hear_queues(self, *, wanted: bool) -> None:
        """Tell of queueing disciplines, too, or no more; may be called from any thread."""
        if wanted is not self._queues:
            self._queues = wanted
            with suppress(OSError):  # closed meanwhile
                (self._route.subscribe if wanted else self._route.unsubscribe)(_QUEUE_GROUPS)

    def know_macs(self, macs: Mapping[NextHop, str]) -> None:
        """Take note of what these routers' hardware addresses are; may be called from any thread."""
        self._translator.macs = dict(macs)

    @property
    def listening(self) -> bool:
        """True until it has ended."""
        return not (self.ended.done() or self._loop.is_closed())

    def close(self) -> None:
        """Tell of nothing any more; may be called from any thread."""
        if not self._soon(self._end):
            self._release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hear nothing of nftables meanwhile, then have all of it looked at; may be called from any thread.

        Otherwise the kernel writes a message for each element of a set: for 50 000 prefixes that takes three times as
        long as the transaction, and more room than any socket has.
        """
        with suppress(OSError):
            self._nft.unsubscribe(_NFTABLES_GROUPS)
        try:
            yield
        finally:
            with suppress(OSError):  # closed meanwhile
                self._nft.subscribe(_NFTABLES_GROUPS)
            self._missed = True
            self._soon(self._take)

    def _soon(self, call: Callable[[], None]) -> bool:
        """Have the loop call; False when it is closed already."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            return False
        return True

    def _take(self) -> None:
        if self.ended.done():
            return
        try:
            for event in self.drain():
                self._tell(event)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the end, who raises it
            self.ended.set_exception(error)

    def _end(self) -> None:
        self._release()
        if not self.ended.done():
            self.ended.set_result(None)

    def _release(self) -> None:
        if not self._released:
            self._released = True
            for source in (self._route, self._nft):
                self._loop.remove_reader(source)
                source.close()

    def drain(self) -> list[KernelEvent]:
        """Read what is there now; a burst of equal touches counts as one."""
        found: list[KernelEvent] = [OwnStateChanged("table"), ForeignStateChanged("filter")] if self._missed else []
        self._missed = False
        found += self._read(self._nft, self._translator.nftables)
        found += self._read(self._route, self._translator.route)
        events: list[KernelEvent] = []
        known = set()
        for event in found:
            what = (event, event.link if isinstance(event, ForeignStateChanged) else None)
            if isinstance(event, LinkChanged | LinkRemoved) or what not in known:
                known.add(what)
                events.append(event)
        return events

    def _read(self, source: NetlinkSocket, translate: _Translate) -> list[KernelEvent]:
        events: list[KernelEvent] = []
        for _ in range(_READS):
            try:
                data = source.receive_now()
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise KernelError("receive notifications", e.errno or 0, e.strerror or str(e)) from e
                events += self._start_afresh(source)
                events.append(EventsLost())
                break
            for message in messages(data):
                events += translate(message)
        return events

    def _start_afresh(self, source: NetlinkSocket) -> list[KernelEvent]:
        """Empty the queue: until then the kernel drops further messages without a word (netlink(7)).

        Returns:
            What links have become meanwhile: an uplink's loss does not wait for the read.
        """
        while True:
            try:
                source.receive_now()
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise KernelError("receive notifications", e.errno or 0, e.strerror or str(e)) from e
        self._touch(None)
        with suppress(KernelError):
            return self._translator.missed(self._links())
        return []
