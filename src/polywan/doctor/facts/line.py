"""What the lines answered when they were asked, and what the box knows of them without asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from polywan.core.net import IPAddress
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.port import PortCounters, PortMode


class GatewayAnswer(NamedTuple):
    """What a next hop said when it was asked for its link-layer address.

    Attributes:
        ok: it answered, or the link knows no neighbours.
        detail: what was seen, for people.
        state: of the kernel's own entry for it, such as "FAILED" (ip-neighbour(8)); empty without one.
        mac: in that entry; empty when it is not known.
    """

    egress: Egress
    gateway: IPAddress
    ok: bool
    detail: str
    state: str = ""
    mac: str = ""


class PageAnswer(NamedTuple):
    """The page of `health.http_url` by one line; `wrong` when something answered with another status."""

    egress: Egress
    url: str
    ok: bool
    wrong: bool
    detail: str


class PathSize(NamedTuple):
    """Echo requests of two sizes by one line.

    Attributes:
        size: bytes of the large ones: the MTU of the link, 1500 at most.
        alive: targets that answered a small one.
        full: targets that answered a large one.
        reported: a router on the path said that it was too large, so that senders learn of it.
        largest: bytes of the largest packet that was answered, where the large ones were not.
    """

    egress: Egress
    size: int
    alive: tuple[IPAddress, ...]
    full: tuple[IPAddress, ...]
    reported: bool = False
    largest: int = 0


class Resolver(NamedTuple):
    """A resolver of this box, and the link whose provider named it; `source` is the file that says so."""

    address: IPAddress
    device: str
    source: str


class ResolverAnswer(NamedTuple):
    """What a resolver said by one line.

    Attributes:
        leaves: device by which the box's own packets to it leave when they carry the mark of the egress.
    """

    egress: Egress
    resolver: Resolver
    ok: bool
    detail: str
    leaves: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFacts:
    """What was found on the lines of a box.

    Attributes:
        gateways: each next hop that is known.
        pages: only where the file names one.
        sizes: each egress with a target of its family.
        lookups: of each resolver in use whose link is known, by each egress.
        counters: errors by device, since it was made; `later`: a while after, of those that had many.
        modes: speed and duplex by device.
        denied: what could not be asked, by name of the attribute, and why.
    """

    gateways: tuple[GatewayAnswer, ...] = ()
    pages: tuple[PageAnswer, ...] = ()
    sizes: tuple[PathSize, ...] = ()
    lookups: tuple[ResolverAnswer, ...] = ()
    counters: Mapping[str, PortCounters] = field(default_factory=dict)
    later: Mapping[str, PortCounters] = field(default_factory=dict)
    modes: Mapping[str, PortMode] = field(default_factory=dict)
    denied: Mapping[str, str] = field(default_factory=dict)
