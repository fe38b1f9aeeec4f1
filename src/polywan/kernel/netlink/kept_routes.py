"""Routes of others as they were last read, for as long as no notification says that they may have changed."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Generic, TypeVar

from polywan.core.net import TableId
from polywan.core.world.foreign_routing import Destination
from polywan.core.world.observed import DefaultRoute, WideRoute
from polywan.kernel.netlink.foreign_routing import TableKey
from polywan.kernel.netlink.socket import Message, text

T = TypeVar("T")

LONGEST_AGE: Final = 600.0
"""Seconds after which routes are read again in any case, in case a notification was lost without a word."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes of others that decisions depend on.

    Attributes:
        supports: with what they go in silence: devices of all next hops (by index), and preferred sources (packed).
    """

    defaults: tuple[DefaultRoute, ...]
    parts: tuple[WideRoute, ...]
    tables: Mapping[TableId, tuple[Destination, ...]]
    supports: frozenset[int | bytes] = frozenset()


@dataclass(slots=True)
class KeptRoutes:
    """Holds one reading; `touch` is called in the loop, `get` in the thread that reads.

    Some changes come without a word of their own: with a device, an address or a nexthop go the IPv4 routes by it.
    So a notification about a device or an address counts when a route that was read leads by it or names it.
    """

    clock: Callable[[], float] = monotonic
    _touched: int = 0
    _supports: deque[int | bytes] = field(default_factory=deque)
    _kept: tuple[frozenset[TableKey], float, int, Routes] | None = None

    def touch(self, support: int | bytes | None = None) -> None:
        """Routes may have changed: those by one device or with one source address, or any."""
        if support is None:
            self._touched += 1
        else:
            self._supports.append(support)

    def get(self, wanted: frozenset[TableKey], read: Callable[[], Routes], *, heard: bool) -> Routes:
        """Return what was read of these tables, or read it.

        Args:
            wanted: the tables whose routes of every kind are known.
            read: reads everything anew.
            heard: somebody listens to notifications and calls `touch`.
        """
        now = self.clock()
        touched_by = {self._supports.popleft() for _ in range(len(self._supports))}
        kept = self._kept
        if kept is not None and heard and (kept[0], kept[2]) == (wanted, self._touched):
            _, at, _, routes = kept
            if now - at < LONGEST_AGE and routes.supports.isdisjoint(touched_by):
                return routes
        touched = self._touched
        self._kept = None
        routes = read()
        if heard:
            self._kept = (wanted, now, touched, routes)
        return routes


class Memo(Generic[T]):
    """Decodes messages; what has the same bytes as the last time is the same value, without decoding it again."""

    def __init__(self) -> None:
        self._last: Mapping[bytes, T] = {}
        self._under: object = None

    def decode(self, messages: Iterable[Message], decode: Callable[[bytes], T], under: object = None) -> list[T]:
        """Return the values of messages; `under` is what else they depend on."""
        last = self._last if self._under == under else {}
        found: dict[bytes, T] = {}
        for message in messages:
            body = message.body
            if body not in found:
                found[body] = last[body] if body in last else decode(body)
        self._last, self._under = found, under
        return list(found.values())


class Names(Mapping[int, str]):
    """Names of devices by index, each asked for when it is needed."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def __getitem__(self, index: int) -> str:
        """Return the name; raises `KeyError` when there is no such device."""
        if index not in self._known:
            with suppress(OSError, OverflowError):
                self._known[index] = text(os.fsencode(socket.if_indextoname(index)))
        return self._known[index]

    def __iter__(self) -> Iterator[int]:
        """Yield the indexes that were asked for."""
        return iter(self._known)

    def __len__(self) -> int:
        """Return how many were asked for."""
        return len(self._known)
