"""What kernel notifications say, as events, without what we did ourselves: rtnetlink(7) and the nftables group."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from polywan.core.net import TABLE_MAIN, family_of
from polywan.core.ruleset.model import TABLE
from polywan.core.state.events import (
    AddressLost,
    ForeignStateChanged,
    KernelEvent,
    LinkChanged,
    LinkRemoved,
    OwnStateChanged,
)
from polywan.core.world.observed import Link
from polywan.core.world.shared_device import NextHop
from polywan.kernel.netlink import neighbours as near
from polywan.kernel.netlink import nexthops as nh
from polywan.kernel.netlink import policy_rules
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.foreign_routing import TableKey, table_of
from polywan.kernel.netlink.socket import Message, attributes, text
from polywan.kernel.tc import messages as tc

_NETCONF, _IFINDEX = 4, 1  # struct netconfmsg, NETCONFA_IFINDEX (linux/netconf.h)
_NEWNETCONF: Final = 80
"""Some settings of a device have changed: rp_filter, forwarding, ignore_routes_with_linkdown (linux/rtnetlink.h)."""

_NFT: Final = 10 << 8
_NEWGEN: Final = _NFT | 15
_FOREIGN: Final = {
    # A chain comes or goes, then rules and tables; everything else is about sets.
    **dict.fromkeys((_NFT | 3, _NFT | 5), "chain"),
    **dict.fromkeys((_NFT | 0, _NFT | 2, _NFT | 6, _NFT | 8), "filter"),
}
_NFPROTO_INET: Final = 1
_TABLE_NAME: Final = 1  # the first attribute of every nftables object names its table
_PROC_PID, _PROC_NAME = 2, 3
_OUR_TABLE: Final = TABLE.split()[1].encode() + b"\0"


class Translator:
    """Turns messages into events; remembers what tells renamed links and foreign transactions.

    Attributes:
        tables: those whose routes of any kind matter, since a rule of others leads to them.
        hops: routers whose hardware addresses matter, and `macs` those that were read last.

    What may have changed routes of others is told to `touch` as well: a device by index, a packed address, or None for
    anything.
    """

    def __init__(
        self,
        own_port: int,
        own_nft_port: Callable[[int], bool],
        links: Iterable[Link],
        touch: Callable[[int | bytes | None], None] = lambda _: None,
    ) -> None:
        self._touch = touch
        self._own_port = own_port
        self._own_nft_port = own_nft_port
        self._nft_ports: dict[int, bool] = {}
        self._table_touched = False
        self._others_touched: set[str] = set()
        self.tables: frozenset[TableKey] = frozenset()
        self.hops: frozenset[NextHop] = frozenset()
        self.macs: dict[NextHop, str] = {}
        self.know(links)

    def know(self, links: Iterable[Link]) -> None:
        """Take note of the links as they are now; what came before may have been missed."""
        self._links = {link.index: link for link in links}
        self._table_touched = False

    def missed(self, links: Iterable[Link]) -> list[KernelEvent]:
        """Take note of the links as they are now, and return what nobody told of them."""
        before = {link.name: link for link in self._links.values()}
        self.know(links)
        now = {link.name: link for link in self._links.values()}
        gone = [LinkRemoved(name) for name, link in before.items() if name not in now or now[name].index != link.index]
        return [*gone, *(LinkChanged(link) for name, link in now.items() if before.get(name) != link)]

    def route(self, message: Message) -> list[KernelEvent]:
        """Translate one message of the route family."""
        match message.kind:
            case rt.NEWLINK | rt.DELLINK:
                return self._link(message)
            case rt.NEWADDR | rt.DELADDR:
                return [self._address(message)]
            case rt.NEWROUTE | rt.DELROUTE:
                return self._route(message)
            case near.NEWNEIGH | near.DELNEIGH:
                return self._neighbour(message)
            case rt.NEWRULE | rt.DELRULE:
                rule = policy_rules.decode_rule(message.body)
                return [] if rule is None else self._touched("rule", message, ours=rule.ours)
            case kind if kind == _NEWNETCONF:
                return self._setting(message)
            case nh.NEWNEXTHOP | nh.DELNEXTHOP:
                # With a nexthop of others go the IPv4 routes by it, without a word of their own.
                ours = nh.touched_nexthop(message.body)
                if message.port != self._own_port:
                    self._touch(None)
                return [] if ours is None else self._touched("nexthop", message, ours=ours)
            case kind if kind in tc.NOTIFICATIONS:
                return self._queues(message)
            case _:
                return []

    def _queues(self, message: Message) -> list[KernelEvent]:
        shown = tc.decode(message.body)
        if shown is None or message.port == self._own_port:
            return []
        return [OwnStateChanged("qdisc") if shown.ours else ForeignStateChanged("qdisc", self._name(shown.ifindex))]

    def _route(self, message: Message) -> list[KernelEvent]:
        ours = rt.touched_route(message.body)
        if ours is not None:
            if message.port != self._own_port:
                self._touch(None)
            return self._touched("route", message, ours=ours)
        if not self.tables or (key := table_of(message.body)) not in self.tables:
            return []
        self._touch(None)
        events = self._touched("route", message, ours=False)
        devices = set(rt.devices_of([message.body]))
        if key[1] != TABLE_MAIN or len(devices) != 1:
            return events
        return [replace(event, link=self._name(*devices)) for event in events if isinstance(event, ForeignStateChanged)]

    def _name(self, index: int) -> str | None:
        link = self._links.get(index)
        return None if link is None else link.name

    def _setting(self, message: Message) -> list[KernelEvent]:
        """Take in that settings of a device, or of all (negative), have changed.

        The kernel names no author, so that a write of ours costs one more read. A device that is being made is told of
        by itself.
        """
        index = int.from_bytes(attributes(message.body, _NETCONF).get(_IFINDEX, b""), sys.byteorder, signed=True)
        if index > 0 and index not in self._links:
            return []
        return [ForeignStateChanged("setting", self._name(index) if index > 0 else None)]

    def _neighbour(self, message: Message) -> list[KernelEvent]:
        """Take in that a router has another hardware address; most messages are about its being reachable."""
        found = near.decode_neighbour(message.kind, message.body)
        name = None if found is None else self._name(found.link)
        if found is None or name is None or (hop := NextHop(name, found.address)) not in self.hops:
            return []
        before, self.macs[hop] = self.macs.get(hop, ""), found.mac
        return [] if before == found.mac else [ForeignStateChanged("neighbour", name)]

    def _address(self, message: Message) -> KernelEvent:
        index, about = rt.address_about(message.body)
        # With an address go the routes that name it as their source, with the last one those by the device.
        self._touch(index)
        self._touch(about)
        if message.kind == rt.DELADDR:
            gone = rt.decode_address(message.body, {index: link.name for index, link in self._links.items()})
            if gone is not None:
                return AddressLost(gone.link, family_of(gone.ip))
        return ForeignStateChanged("address", self._name(index))

    def _touched(self, what: str, message: Message, *, ours: bool) -> list[KernelEvent]:
        if message.port == self._own_port:
            return []
        return [OwnStateChanged(what) if ours else ForeignStateChanged(what)]

    def _link(self, message: Message) -> list[KernelEvent]:
        link = rt.decode_link(message.body)
        if link is None:
            broken = tc.broken_ifb(message.body, removed=message.kind == rt.DELLINK)
            return self._touched("qdisc", message, ours=True) if broken else []
        before = self._links.get(link.index)
        self._touch(link.index)
        if message.kind == rt.DELLINK:
            self._links.pop(link.index, None)
            return [LinkRemoved(link.name)]
        if link == before:
            return []
        self._links[link.index] = link
        gone = [LinkRemoved(before.name)] if before is not None and before.name != link.name else []
        return [*gone, LinkChanged(link)]

    def nftables(self, message: Message) -> list[KernelEvent]:
        """Translate one message of the nftables group; NEWGEN ends a transaction and names its author."""
        if message.port not in self._nft_ports:
            self._nft_ports[message.port] = self._own_nft_port(message.port)
        found = {} if self._nft_ports[message.port] else attributes(message.body, 4)
        if message.kind != _NEWGEN:
            ours = message.kind & 0xFF00 == _NFT and message.body[:1] == bytes((_NFPROTO_INET,))
            ours = ours and found.get(_TABLE_NAME) == _OUR_TABLE
            self._table_touched |= ours
            if found and not ours:
                self._others_touched.add(_FOREIGN.get(message.kind, "elements"))
            return []
        self._nft_ports.clear()
        touched, self._table_touched = self._table_touched, False
        others, self._others_touched = self._others_touched, set()
        own: list[KernelEvent] = [OwnStateChanged("table", _author(found))] if touched else []
        first = next((what for what in ("chain", "filter", "elements") if what in others), None)
        return own if first is None else [*own, ForeignStateChanged(first)]


def _author(found: dict[int, bytes]) -> str:
    name, pid = text(found.get(_PROC_NAME, b"")), found.get(_PROC_PID, b"")
    if not name or len(pid) != 4:
        return name
    return f"{name} (pid {struct.unpack('>I', pid)[0]})"
