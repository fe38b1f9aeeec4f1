"""What is known about a domain name: which of its addresses count, and when it is asked again. Times are monotonic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from polywan.core.net import IPAddress

ASK: Final = (30.0, 3600.0)
"""Seconds until a name is asked again, whatever its time to live: shortest and longest."""

NAME_RETRY: Final = (10.0, 300.0)
"""Seconds until a name that did not answer is asked again: first and longest wait; it doubles in between."""

ADDRESS_LIFETIME: Final = 3600.0
"""Seconds for which an address counts after it was last seen, or twice the time to live if that is longer: answers
rotate, and connections outlive them."""

MOST_PER_NAME: Final = 256
"""Addresses of one name; those seen last are kept."""

RETRY_SPREAD: Final = 0.1
"""Part of the wait by which names are set apart, so that those asked together are not asked together forever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the resolver said about a name, both families together.

    Attributes:
        ttl: seconds, the shortest of all records that led to the addresses.
        problem: what went wrong; beside addresses it is the other family's.
    """

    addresses: tuple[IPAddress, ...] = ()
    ttl: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A name and what is known about it.

    Attributes:
        seen: until when each address counts, as long as answers come.
        due: when it is asked next.
        failures: replies in a row that were not whole.
        problem: why its last reply had no address; empty when it had one, or none came yet.
    """

    seen: Mapping[IPAddress, float] = field(default_factory=dict)
    due: float = float("-inf")
    failures: int = 0
    problem: str = ""

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Its addresses, sorted."""
        return tuple(sorted(self.seen, key=lambda address: (address.version, int(address))))


def learn(known: Domain, name: str, reply: Reply, now: float) -> Domain:
    """Fold a reply in: addresses of earlier ones are kept for a while, and for as long as none comes."""
    problem = reply.problem or ("" if reply.addresses else "no address")
    failures = known.failures + 1 if problem else 0
    wait = NAME_RETRY[0] * 2.0 ** min(failures - 1, 16) if failures else reply.ttl
    low, high = NAME_RETRY if failures else ASK
    due = now + min(max(wait, low), high) * (1 + RETRY_SPREAD * _turn(name))
    if not reply.addresses:
        return replace(known, due=due, failures=failures, problem=problem)
    until = now + max(ADDRESS_LIFETIME, 2 * min(reply.ttl, ASK[1]))
    seen = {address: end for address, end in known.seen.items() if end > now}
    seen |= dict.fromkeys(reply.addresses, until)
    newest = sorted(seen.items(), key=lambda item: (-item[1], item[0].version, int(item[0])))[:MOST_PER_NAME]
    return Domain(seen=dict(newest), due=due, failures=failures)


def _turn(name: str) -> float:
    """A number from 0 to 1 that is the name's own."""
    return crc32(name.encode()) / 0xFFFF_FFFF
