"""From a seed to a list of accidents: a pure function, so that a seed replays the same run anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal, get_args

from polywan.config.model.policy import Algorithm

MARGIN: Final = 1.0
"""Seconds at both ends of the time given in which nothing is begun: flows are opened, the last repair is made."""
BURST: Final = 50
"""Reloads in a burst."""

_TAMPER_GAP: Final = 2.5
_LONGEST_FAULT: Final = 16.0
_ALL_DOWN: Final = 0.1
_QUEUES: Final = (0.5, 1.5, 3.0)
_ALGORITHMS: Final[Sequence[Algorithm]] = (
    "weighted",
    "weighted",
    "random",
    "connection",
    "source-destination",
    "multipath",
)

Filling = Literal["tcp up", "udp up"]
"""What fills a slow line: an upload, whose acknowledgements come back, or datagrams that nobody answers."""


class Kind(StrEnum):
    """What can be done to the network, the daemon and the kernel; the value is how people read it."""

    CUT = "cut the cable of"
    RESTORE = "restore the cable of"
    LINK_DOWN = "set down the device of"
    LINK_UP = "set up the device of"
    SILENCE = "lose all that crosses"
    ANSWERS = "let pass again what crosses"
    ECHO_LOST = "lose echo requests that cross"
    ECHO_BACK = "let pass again echo requests that cross"
    FILL = "fill the line of"
    DRAIN = "empty the line of"
    READDRESS = "give a new address to"
    REMAKE = "delete and make anew the device of"
    KILL = "kill -9 the daemon"
    START = "start the daemon"
    RELOAD = "reload other settings"
    BURST = "reload many times"
    FLUSH_NFT = "nft flush ruleset"
    FLUSH_RULES = "ip rule flush protocol 200"
    FLUSH_ROUTES = "ip route flush table of"
    FLUSH_TRACKING = "conntrack -F"
    TUNNEL_COMES = "add rules and marks as VPN clients do"
    TUNNEL_GOES = "delete the rules and marks of the VPN client"


FAULTS: Final = {
    Kind.CUT: Kind.RESTORE,
    Kind.LINK_DOWN: Kind.LINK_UP,
    Kind.SILENCE: Kind.ANSWERS,
    Kind.ECHO_LOST: Kind.ECHO_BACK,
}
"""What breaks an uplink, and what mends that."""
TAMPERING: Final = (Kind.FLUSH_NFT, Kind.FLUSH_RULES, Kind.FLUSH_ROUTES)
"""What takes something of ours away, and has to be repaired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a reload changes in the configuration.

    Attributes:
        weights: of the uplinks in their order.
        affinity: clients are kept on their uplink.
        favourite: number of the uplink that a steering rule prefers for some destinations; 0 without that rule.
    """

    weights: tuple[int, ...]
    algorithm: Algorithm = "weighted"
    affinity: bool = False
    favourite: int = 0


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done `at` seconds after the beginning.

    Attributes:
        uplink: number of the uplink that it is about, 0 for none.
        host: last part of the new address (`READDRESS`); 2 is the one that the uplink began with.
        settings: what is reloaded (`RELOAD`, `BURST`).
        queue: seconds that the queue of the line takes to drain, and with what it is filled (`FILL`).
    """

    at: float
    kind: Kind
    uplink: int = 0
    host: int = 0
    settings: Settings | None = None
    queue: tuple[float, Filling] | None = None

    def __str__(self) -> str:
        about = f" isp{self.uplink}" if self.uplink else ""
        queue = f" with {self.queue[1]}, {self.queue[0]:g} s long" if self.queue else ""
        return f"{self.at:7.2f} s {self.kind}{about}{queue}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole run.

    Attributes:
        trunk: the uplinks are macvlan devices on one cable, so that one can be deleted and made anew.
        both_methods: targets are asked by echo requests and by TCP, so that lost echo requests do no harm.
    """

    seed: int
    seconds: float
    uplinks: int
    trunk: bool
    both_methods: bool
    first: Settings
    actions: tuple[Action, ...]


def make_plan(seed: int, seconds: float) -> Plan:
    """Return the run of a seed: accidents one or two seconds apart, each mended before the time is over.

    Args:
        seed: any integer.
        seconds: from the first flow to the last repair.
    """
    chance = random.Random(seed)
    uplinks, trunk, both = chance.choice((3, 4)), chance.random() < 0.3, chance.random() < 0.5
    first = Settings(weights=tuple(chance.randint(1, 4) for _ in range(uplinks)))
    drawing = _Drawing(chance, uplinks, trunk, seconds - MARGIN, first)
    actions = sorted(drawing.actions(), key=lambda action: action.at)
    return Plan(
        seed=seed,
        seconds=seconds,
        uplinks=uplinks,
        trunk=trunk,
        both_methods=both,
        first=first,
        actions=tuple(actions),
    )


class _Drawing:
    """Draws accidents one after the other and remembers what is broken, so that none is broken twice at once."""

    def __init__(self, chance: random.Random, uplinks: int, trunk: bool, end: float, first: Settings) -> None:
        self.chance, self.uplinks, self.trunk, self.end, self.settings = chance, uplinks, trunk, end, first
        self.broken_until = dict.fromkeys(range(1, uplinks + 1), 0.0)
        self.slow_until = dict(self.broken_until)
        self.moved: set[int] = set()
        self.dead_until = self.quiet_until = self.tunnel_until = 0.0

    def actions(self) -> Iterator[Action]:
        """Yield all, in no order: each accident comes with its repair."""
        now = MARGIN
        while (now := now + self.chance.uniform(0.3, 2.2)) < self.end - 0.5:
            drawn = {
                self._fault: 8,
                self._death: 2,
                self._reload: 4,
                self._tampering: 3,
                self._change: 2,
                self._forget: 1,
                self._tunnel: 2,
                self._fill: 2,
            }
            yield from self.chance.choices(tuple(drawn), tuple(drawn.values()))[0](now)
        for number in sorted(self.moved):
            yield Action(max(self.end, self.broken_until[number]), Kind.READDRESS, number, host=2)

    def _well(self, now: float) -> list[int]:
        return [number for number, until in self.broken_until.items() if until < now]

    def _fault(self, now: float) -> Iterator[Action]:
        well = self._well(now)
        if not well or (len(well) == 1 and self.chance.random() > _ALL_DOWN):
            return
        number, kind = self.chance.choice(well), self.chance.choice(tuple(FAULTS))
        until = min(self.end, now + self.chance.choice((0.4, 1.5, _LONGEST_FAULT)) * self.chance.uniform(0.5, 1.0))
        self.broken_until[number] = until + 0.2
        yield Action(now, kind, number)
        yield Action(until, FAULTS[kind], number)

    def _death(self, now: float) -> Iterator[Action]:
        if self.dead_until > now:
            return
        back = min(self.end, now + self.chance.choice((0.1, 1.0, 4.0)) * self.chance.uniform(0.3, 1.0))
        # Sometimes the next kill meets it while it is still starting.
        self.dead_until = back + self.chance.choice((0.1, 0.5, 3.0))
        yield Action(now, Kind.KILL)
        yield Action(back, Kind.START)

    def _reload(self, now: float) -> Iterator[Action]:
        self.settings = self._other_settings()
        kind = Kind.BURST if self.chance.random() < 0.15 else Kind.RELOAD
        yield Action(now, kind, settings=self.settings)

    def _other_settings(self) -> Settings:
        chance, old = self.chance, self.settings
        match chance.randrange(4):
            case 0:
                algorithm = chance.choice(_ALGORITHMS)
                keeps = old.affinity and algorithm in ("weighted", "random", "connection")
                return replace(old, algorithm=algorithm, affinity=keeps)
            case 1:
                return replace(old, favourite=chance.randint(0, self.uplinks))
            case 2 if old.algorithm in ("weighted", "random", "connection"):
                return replace(old, affinity=not old.affinity)
            case _:
                return replace(old, weights=tuple(chance.randint(1, 6) for _ in old.weights))

    def _tampering(self, now: float) -> Iterator[Action]:
        if now < self.quiet_until:
            return
        # More than five repairs in ten seconds would be a fight, which the daemon answers with patience.
        self.quiet_until = now + _TAMPER_GAP
        kind = self.chance.choice(TAMPERING)
        yield Action(now, kind, self.chance.randint(1, self.uplinks) if kind is Kind.FLUSH_ROUTES else 0)

    def _change(self, now: float) -> Iterator[Action]:
        well = self._well(now)
        if not well:
            return
        number = self.chance.choice(well)
        if self.trunk and self.chance.random() < 0.5:
            yield Action(now, Kind.REMAKE, number)
        else:
            self.moved.add(number)
            yield Action(now, Kind.READDRESS, number, host=self.chance.randint(3, 9))
        self.broken_until[number] = now + 0.5

    def _fill(self, now: float) -> Iterator[Action]:
        idle = [number for number in self._well(now) if self.slow_until[number] < now]
        # Who shares a cable shares its queue.
        if self.trunk or not idle:
            return
        number, until = self.chance.choice(idle), min(self.end, now + self.chance.uniform(2.0, 14.0))
        self.slow_until[number] = until + 0.2
        yield Action(now, Kind.FILL, number, queue=(self.chance.choice(_QUEUES), self.chance.choice(get_args(Filling))))
        yield Action(until, Kind.DRAIN, number)

    def _forget(self, now: float) -> Iterator[Action]:
        yield Action(now, Kind.FLUSH_TRACKING)

    def _tunnel(self, now: float) -> Iterator[Action]:
        if now < self.tunnel_until:
            return
        until = min(self.end, now + self.chance.uniform(0.3, 6.0))
        self.tunnel_until = until + 0.2
        yield Action(now, Kind.TUNNEL_COMES)
        yield Action(until, Kind.TUNNEL_GOES)
