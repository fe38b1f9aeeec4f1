"""Coming back: what happens to the connections of an uplink that stood in once a better one serves again.

A connection's mark names its uplink, not its policy. So it is uplinks that are *left*, each family for itself: one
that some policy still uses is never left, and where policies differ the mildest decides. docs/design/coming-back.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final, NamedTuple, TypeAlias

from polywan.config import Policy
from polywan.config.model.policy import Drain
from polywan.core.health.rounds import ProbeState
from polywan.core.net import PROTOCOLS
from polywan.core.policy.operator import Order, Verb
from polywan.core.policy.selection import Choice, Selection, usable
from polywan.core.resolved import Resolved
from polywan.core.world.conntrack import Flow
from polywan.core.world.paths import Reach, UplinkFamily

IDLE_BEFORE_MOVE: Final = 10.0
"""Seconds without a packet after which a connection that is not TCP may move.

Keep-alives of tunnels (25 s) and registrations (20 s and more) are further apart; what a call sends never is.
"""

INSPECT_INTERVAL: Final = 2.0
"""Seconds between two looks at the connections of an uplink that is left."""

GATHER: Final = 2
"""Looks that take in what they find; later ones only watch it, since who comes later chose this uplink itself."""

RESET_GRACE: Final = 3.0
"""Seconds between the resets at the deadline and forgetting whatever met none."""

METERED_DEADLINE: Final = 600.0
"""Default of `on_up` for metered uplinks, seconds."""

_TCP: Final = PROTOCOLS["tcp"]


@dataclass(frozen=True, slots=True)
class DrainTiming:
    """How an uplink is left: seconds without a packet until what is not TCP moves, and until everything is ended."""

    idle: float
    lasts: float

    def milder(self, other: DrainTiming) -> DrainTiming:
        """Return what is harsher than neither."""
        return DrainTiming(max(self.idle, other.idle), max(self.lasts, other.lasts))


STAY: Final = DrainTiming(inf, inf)
WHEN_IDLE: Final = DrainTiming(IDLE_BEFORE_MOVE, inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainState:
    """An uplink that is being left in one family; times are monotonic seconds.

    Attributes:
        since: when a better uplink took over, or somebody said so.
        timing: how.
        looks: how often its connections were looked at; `look` is the time of the next one.
        cut: when its deadline came: since then its connections meet resets.
        emptied: what was left after that is being forgotten.
        done: nothing is left to do; kept as long as somebody's order stands.
    """

    since: float
    timing: DrainTiming
    looks: int = 0
    look: float
    cut: float | None = None
    emptied: bool = False
    done: bool = False

    @property
    def deadline(self) -> float:
        """When everything that is left is ended."""
        return self.since + self.timing.lasts

    @property
    def due(self) -> float:
        """When it has to be turned to next."""
        if self.done or self.emptied:
            return inf
        return min(self.look, self.deadline) if self.cut is None else self.cut + RESET_GRACE


Drains: TypeAlias = Mapping[UplinkFamily, DrainState]


def timing_of(config: Resolved, selection: Selection, key: UplinkFamily) -> DrainTiming:
    """Return how an uplink that serves nobody is to be left: the mildest of what its policies say.

    Policies count in which it stands below the tier that serves. In that tier itself it is degraded while others are
    well: its connections may go, but are not ended, since it is expected back.
    """
    timings = list(_timings(config, selection, key))
    if not timings:
        return STAY
    mildest = timings[0]
    for timing in timings[1:]:
        mildest = mildest.milder(timing)
    return mildest


def _timings(config: Resolved, selection: Selection, key: UplinkFamily) -> Iterator[DrainTiming]:
    name, family = key
    for policy_name, policy in config.policies.items():
        place = tier_of(policy, name)
        choice = selection.choices.get((policy_name, family))
        if place is None or choice is None or not _better(choice, place):
            continue
        timing = _timing(policy, metered=config.uplinks[name].metered)
        yield timing.milder(WHEN_IDLE) if choice.tier == place else timing


def _timing(policy: Policy, *, metered: bool) -> DrainTiming:
    match policy.on_up:
        case None:
            return DrainTiming(IDLE_BEFORE_MOVE, METERED_DEADLINE if metered else inf)
        case Drain(drain=seconds):
            return DrainTiming(IDLE_BEFORE_MOVE, seconds)
        case "move":
            return DrainTiming(0.0, inf)
        case "move-when-idle":
            return WHEN_IDLE
        case "stay":
            return STAY


def tier_of(policy: Policy, name: str) -> int | None:
    """Return the index of the first tier that the uplink is a member of."""
    return next((i for i, tier in enumerate(policy.tiers) if any(m.uplink == name for m in tier)), None)


def _better(choice: Choice, place: int) -> bool:
    """True when the choice is a good one, of the tier `place` or one before it."""
    return bool(choice.members) and not choice.forced and choice.tier is not None and choice.tier <= place


def serving(selection: Selection | None) -> frozenset[UplinkFamily]:
    """Return the uplinks that some policy uses."""
    if selection is None:
        return frozenset()
    return frozenset((name, family) for (_, family), c in selection.choices.items() for name, _ in c.members)


def superseded(config: Resolved, before: Selection | None, after: Selection) -> frozenset[UplinkFamily]:
    """Return the uplinks that served and do not any more because a better one does.

    Somebody better has to come: who turns worse beside others keeps its connections. A file that gives an uplink
    another place relieves nobody either: a reload moves no connection.
    """
    gone = serving(before) - serving(after)
    if before is None or not gone:
        return frozenset()
    policies = config.policies
    found = set()
    for (policy_name, family), old in before.choices.items():
        policy, new = policies.get(policy_name), after.choices.get((policy_name, family))
        if policy is None or new is None:
            continue
        came = dict(new.members).keys() - dict(old.members).keys()
        for name, _ in old.members if came else ():
            place = tier_of(policy, name)
            if place is not None and place == old.tier and _better(new, place):
                found.add((name, family))
    return frozenset(found) & gone


class Situation(NamedTuple):
    """What `follow` goes by.

    Attributes:
        orders: what people have said.
        remembered: when each uplink began to be left, monotonic, of a daemon before this one.
        unix: what added to monotonic seconds gives Unix time.
    """

    config: Resolved
    reach: Mapping[UplinkFamily, Reach]
    health: Mapping[UplinkFamily, ProbeState]
    orders: Mapping[str, Order]
    remembered: Mapping[UplinkFamily, float]
    unix: float


def follow(situation: Situation, known: Drains, before: Selection | None, after: Selection, now: float) -> Drains:
    """Return which uplinks are left from now on, after a selection.

    What is asked by hand comes first. An uplink that serves anybody, or cannot be used, is not left by itself.
    """
    newly_superseded = superseded(situation.config, before, after)
    used = serving(after)
    result: dict[UplinkFamily, DrainState] = {}
    for key in situation.reach:
        order = situation.orders.get(key[0])
        old = known.get(key)
        if order is not None:
            if order.verb is Verb.DRAIN and not order.empty:
                result[key] = _by_hand(order, old, situation.unix, now)
            continue
        if (
            key in used
            or not situation.config.uplinks[key[0]].enabled
            or not usable(key, situation.reach, situation.health)
        ):
            continue
        since = now if key in newly_superseded else old.since if old else situation.remembered.get(key)
        if since is None or (old is not None and old.done and key not in newly_superseded):
            continue
        timing = timing_of(situation.config, after, key)
        if timing == STAY:
            continue
        if old is not None and key not in newly_superseded:
            result[key] = replace(old, timing=timing)
        else:
            result[key] = DrainState(since=min(since, now), timing=timing, look=now)
    return result


def _by_hand(order: Order, old: DrainState | None, unix: float, now: float) -> DrainState:
    """A drain that somebody asked for; after a restart it goes on, and a clock that was set does not prolong it."""
    lasts = max(0.0, (order.until or order.since) - order.since)
    since = min(now, order.since - unix)
    if old is not None and abs(old.since - since) < 1e-3 and old.timing.lasts == lasts:
        return old
    return DrainState(since=since, timing=DrainTiming(IDLE_BEFORE_MOVE, lasts), look=now)


def to_remember(
    drains: Drains, orders: Mapping[str, Order], old: Mapping[UplinkFamily, float], unix: float
) -> tuple[dict[str, Order], dict[UplinkFamily, float]]:
    """Return what a next daemon has to know: people's orders, and since when (Unix time) uplinks are left.

    Args:
        drains: what is left now.
        orders: people's; a drain of which nothing is left is marked as such.
        old: what was kept so far.
        unix: what added to monotonic seconds gives Unix time.
    """
    drained = {name for name, order in orders.items() if order.verb is Verb.DRAIN and _all_done(drains, name)}
    result = {name: replace(order, empty=True) if name in drained else order for name, order in orders.items()}
    began = {}
    for key, drain_state in drains.items():
        if key[0] not in orders:
            known, at = old.get(key), drain_state.since + unix
            # The same moment, computed again, is off by a rounding error: no reason to write the file anew.
            began[key] = known if known is not None and abs(known - at) < 1e-3 else at
    return result, began


def _all_done(drains: Drains, name: str) -> bool:
    states = [drain_state.done for (n, _), drain_state in drains.items() if n == name]
    return bool(states) and all(states)


def cut_off(drains: Drains) -> frozenset[UplinkFamily]:
    """Return the uplinks whose deadline has come: their marks belong to the dead ones for a while."""
    return frozenset(key for key, drain_state in drains.items() if drain_state.cut is not None and not drain_state.done)


class DrainStep(NamedTuple):
    """What is due: `look` and `empty` name uplinks, `changed` says that a deadline has come and a decision is due."""

    drains: Drains
    look: tuple[UplinkFamily, ...] = ()
    empty: tuple[UplinkFamily, ...] = ()
    changed: bool = False


def advance(drains: Drains, now: float) -> DrainStep:
    """Do what is due now."""
    result = dict(drains)
    look, empty, changed = [], [], False
    for key, drain_state in drains.items():
        if drain_state.due > now:
            continue
        if drain_state.cut is not None:
            result[key] = replace(drain_state, emptied=True)
            empty.append(key)
        elif drain_state.deadline <= now:
            result[key] = replace(drain_state, cut=now)
            changed = True
        else:
            result[key] = replace(drain_state, look=now + INSPECT_INTERVAL, looks=drain_state.looks + 1)
            look.append(key)
    return DrainStep(result, tuple(look), tuple(empty), changed)


def inspected(drains: Drains, key: UplinkFamily, since: float, remaining: int, movable: int) -> Drains:
    """Fold in what a look found, or that nothing is left after the deadline; equal when nothing follows from it.

    Args:
        drains: what is known.
        key: the uplink.
        since: which leaving it belongs to.
        remaining: connections of any kind that are still there.
        movable: connections that may still move.
    """
    drain_state = drains.get(key)
    if drain_state is None or drain_state.since != since or drain_state.done:
        return drains
    over = drain_state.emptied
    if drain_state.cut is None and drain_state.looks >= GATHER:
        over = remaining == 0 or (drain_state.timing.lasts == inf and movable == 0)
    return {**drains, key: replace(drain_state, done=True)} if over else drains


Key: TypeAlias = tuple[int, str, int | None, str, int | None]


class ConnectionSample(NamedTuple):
    """What shows that a connection had a packet: its counters and when it would be forgotten; seen like this since."""

    packets: int
    ends: float
    since: float


def key_of(flow: Flow) -> Key:
    """Return what tells connections apart; those of ICMP between two hosts count as one."""
    return flow.protocol, flow.client, flow.client_port, flow.destination, flow.port


@dataclass(frozen=True, slots=True)
class IdleTracker:
    """The connections of an uplink that may move, and since when each had no packet.

    TCP is not among them: it cannot change its address. Nor is what arrived from outside, by the uplink's own
    addresses: nobody there would know another.
    """

    samples: Mapping[Key, ConnectionSample]

    def look(self, flows: Iterable[Flow], now: float, *, gather: bool, exempt: frozenset[str]) -> IdleTracker:
        """Return what is watched after another look.

        Args:
            flows: every connection of the uplink and family.
            now: monotonic seconds.
            gather: take in connections that were not known yet.
            exempt: the uplink's own addresses.
        """
        found: dict[Key, ConnectionSample] = {}
        for flow in flows:
            if flow.protocol == _TCP or flow.destination in exempt:
                continue
            key = key_of(flow)
            new = _sample(flow, now)
            if key in found:
                found[key] = _together(found[key], new)
            elif gather or key in self.samples:
                found[key] = new
        return IdleTracker({key: _since(sample, self.samples.get(key)) for key, sample in found.items()})

    def idle(self, flow: Flow, seconds: float, now: float) -> bool:
        """True when the connection is watched and has had no packet for so long."""
        old = self.samples.get(key_of(flow))
        return old is not None and now - _since(_sample(flow, now), old).since >= seconds

    def without(self, gone: Iterable[Key]) -> IdleTracker:
        """Return the same without connections that have moved: should they come back, they chose this uplink."""
        moved = set(gone)
        return IdleTracker({key: sample for key, sample in self.samples.items() if key not in moved})


def _sample(flow: Flow, now: float) -> ConnectionSample:
    ends = 0.0 if flow.timeout is None else now + flow.timeout
    return ConnectionSample((flow.packets_up or 0) + (flow.packets_down or 0), ends, now)


def _together(one: ConnectionSample, other: ConnectionSample) -> ConnectionSample:
    return ConnectionSample(one.packets + other.packets, max(one.ends, other.ends), one.since)


def _since(new: ConnectionSample, old: ConnectionSample | None) -> ConnectionSample:
    """Keep since when it looks as it does: a packet counts, and puts off the end; the kernel tells whole seconds."""
    if old is None or new.packets != old.packets or abs(new.ends - old.ends) > 1.5:
        return new
    return ConnectionSample(old.packets, old.ends, old.since)
