"""The layers of an uplink above its link, each checked for itself: what is asked, and what was found.

From below: carrier, gateway (ARP or neighbour discovery), targets (the rounds of `core/health/rounds.py`), DNS, HTTP,
large packets, and whatever a script looks at. The verdict names the first that broke.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Final

from polywan.core.net import Family, IPAddress
from polywan.core.world.paths import UplinkFamily

BROKEN_AFTER: Final = 2
"""Bad checks in a row until a layer counts as broken: one lost datagram is nothing; a second look follows soon."""

WELL_AFTER: Final = 2
"""Good checks in a row until a broken layer counts as well: one answer of an overloaded resolver is none yet."""

RECHECK: Final = 1.0
"""Seconds until the second look, when a result contradicts what was known."""


class Layer(StrEnum):
    """A layer that has probes of its own, lowest first."""

    GATEWAY = "gateway"
    DNS = "dns"
    HTTP = "http"
    LARGE = "large"
    SCRIPT = "script"


class LayerVerdict(StrEnum):
    """What is known of a layer."""

    OK = "ok"
    BROKEN = "broken"
    UNKNOWN = "unknown"


REQUIRED: Final = (Layer.DNS, Layer.HTTP, Layer.SCRIPT)
"""Layers without which an uplink gets no new connections, lowest first; the others only name or degrade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOrder:
    """Probe one layer of one uplink once; answered by one `CheckResult`.

    Attributes:
        interface, mark: device and packet mark that the sockets are bound to before anything is sent.
        number: what the result carries back.
        timeout: seconds for the whole check.
        gateway: next hop, for the gateway layer; None on point-to-point links.
        servers: resolvers to ask (DNS, and for the name in `url`); for the large layer, whom to send to: one answer
            is enough.
        name: what the dns layer asks for.
        url, status: page of the http layer and the status that it must have.
        size: bytes of the IP packet of the large layer.
        command: program and arguments of the script layer.
    """

    uplink: str
    family: Family
    layer: Layer
    interface: str
    mark: int
    number: int
    timeout: float
    gateway: IPAddress | None = None
    servers: tuple[IPAddress, ...] = ()
    name: str = ""
    url: str = ""
    status: int = 204
    size: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A layer was checked.

    Attributes:
        detail: what was seen, for people: "no answer to ARP", "302 instead of 204: a captive portal".
        rtt: seconds until the answer; None when it failed.
        sent, received: bytes on the wire, estimated where the kernel does not tell.
    """

    uplink: str
    family: Family
    layer: Layer
    number: int
    ok: bool
    detail: str = ""
    rtt: float | None = None
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState:
    """What is known of one layer of one uplink in one family; times are monotonic seconds.

    Attributes:
        verdict: the judgement; `since` is when it last changed.
        detail: what the last check saw, for people; `well` is its outcome, None before the first.
        good, bad: checks in a row that count for a verdict.
        number: of the last check that was ordered; `sent` is when, None before the first.
        pending: its result is still to come.
        checked: when the last check that has a result was ordered.
        troubled: the last check was ordered while the rounds failed or were suspect.
        next: a check is due at this time at the latest, whatever the usual pace.
        rtt: seconds, of the last good check.
    """

    verdict: LayerVerdict = LayerVerdict.UNKNOWN
    since: float = 0.0
    detail: str = ""
    well: bool | None = None
    good: int = 0
    bad: int = 0
    number: int = 0
    sent: float | None = None
    pending: bool = False
    checked: float = -inf
    troubled: bool = False
    next: float = inf
    rtt: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Bytes that probes and checks of an uplink have sent and received from time `since` to time `until`."""

    since: float
    until: float
    sent: int = 0
    received: int = 0

    @property
    def total(self) -> int:
        """Both ways together: what a provider counts."""
        return self.sent + self.received


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """All layers of all uplinks.

    Attributes:
        known: by uplink and family.
        wake: no check is due before; a lower bound. `looked`: when all uplinks were last looked at for what is due.
        spent: volume by uplink.
        asked: number of the first round after somebody asked for a test.
    """

    known: Mapping[UplinkFamily, Mapping[Layer, LayerState]] = field(default_factory=dict)
    wake: float = 0.0
    looked: float = -inf
    spent: Mapping[str, Spent] = field(default_factory=dict)
    asked: Mapping[UplinkFamily, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the layers say beyond the rounds: a sentence for each uplink and family that is concerned.

    Attributes:
        blocked: a required layer is broken: no new connections; those it has work, as far as the network goes.
        impaired: the large layer is broken: degraded.
        reasons: the rounds failed, and this is where.
    """

    blocked: Mapping[UplinkFamily, str] = field(default_factory=dict)
    impaired: Mapping[UplinkFamily, str] = field(default_factory=dict)
    reasons: Mapping[UplinkFamily, str] = field(default_factory=dict)


NO_FINDINGS: Final = Findings()
"""Nothing to say."""


def ordered(known: LayerState, now: float, *, troubled: bool) -> LayerState:
    """Note that a check is ordered now; its number is `number` of the result."""
    return replace(known, number=known.number + 1, sent=now, pending=True, troubled=troubled, next=inf)


def updated(known: LayerState, layer: Layer, *, ok: bool, detail: str, rtt: float | None, now: float) -> LayerState:
    """Fold in a result. The gateway layer follows each one: it only explains, and is asked when others fail."""
    known = answered(known, ok=ok, detail=detail, rtt=rtt)
    good, bad = (known.good + 1, 0) if ok else (0, known.bad + 1)
    verdict = known.verdict
    at_once = layer is Layer.GATEWAY
    if ok and (at_once or verdict is LayerVerdict.UNKNOWN or good >= WELL_AFTER):
        verdict = LayerVerdict.OK
    elif not ok and (at_once or bad >= BROKEN_AFTER):
        verdict = LayerVerdict.BROKEN
    settled = verdict is (LayerVerdict.OK if ok else LayerVerdict.BROKEN)
    since = known.since if verdict is known.verdict else now
    return replace(known, verdict=verdict, since=since, good=good, bad=bad, next=inf if settled else now + RECHECK)


def answered(known: LayerState, *, ok: bool, detail: str, rtt: float | None) -> LayerState:
    """Note a result without judging by it."""
    return replace(
        known,
        well=ok,
        detail=detail,
        rtt=known.rtt if rtt is None else rtt,
        pending=False,
        checked=known.checked if known.sent is None else known.sent,
    )
