"""What the tracked connections of each client add up to."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Final

from polywan.api.views.clients import Clients, ClientTotal
from polywan.core.world.conntrack import Flow

SCHEMA: Final = 1
"""Version of the document's shape; fields are added, never changed."""

MOST_LISTED_CLIENTS: Final = 1000
"""Clients of one answer: written in three milliseconds."""


class _Sums:
    """What was counted of one client: connections by mark, those that had numbers, and their bytes."""

    __slots__ = ("bytes_down", "bytes_up", "marks", "with_bytes")

    def __init__(self) -> None:
        self.marks: dict[int, int] = {}
        self.with_bytes = self.bytes_up = self.bytes_down = 0


def clients(flows: Iterable[Flow], names: Mapping[int, str], limit: int) -> Clients:
    """Return the clients that moved most; connections that have no uplink are not counted.

    Args:
        flows: all connections.
        names: uplinks by mark.
        limit: how many clients are wanted.
    """
    found: dict[str, _Sums] = {}
    for flow in flows:
        mark = flow.mark
        if mark not in names:
            continue
        sums = found.get(flow.client)
        if sums is None:
            sums = found[flow.client] = _Sums()
        sums.marks[mark] = sums.marks.get(mark, 0) + 1
        up, down = flow.bytes_up, flow.bytes_down
        if up is not None and down is not None:
            sums.with_bytes += 1
            sums.bytes_up += up
            sums.bytes_down += down
    most = heapq.nsmallest(limit, found.items(), key=_rank)
    return Clients(schema=SCHEMA, clients=tuple(_total(client, sums, names) for client, sums in most), total=len(found))


def _rank(one: tuple[str, _Sums]) -> tuple[int, int, str]:
    client, sums = one
    return -sums.bytes_up - sums.bytes_down, -sum(sums.marks.values()), client


def _total(client: str, sums: _Sums, names: Mapping[int, str]) -> ClientTotal:
    return ClientTotal(
        client=client,
        connections=sum(sums.marks.values()),
        bytes_up=sums.bytes_up if sums.with_bytes else None,
        bytes_down=sums.bytes_down if sums.with_bytes else None,
        uplinks={names[mark]: count for mark, count in sums.marks.items()},
    )
