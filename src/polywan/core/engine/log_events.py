"""Tell what happens to uplinks and policies: sentences for the log, and changes for the journal and for hooks.

A loss is told at once. What usually comes in several parts is told once they have all come: an uplink returns in one
family and then in the other, an address goes and another one comes, a policy is left by one uplink after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.core.engine import probing
from polywan.core.health import damping as dm
from polywan.core.health.layers import Findings
from polywan.core.health.rounds import Health
from polywan.core.identity import PerKey
from polywan.core.journal.changes import Change, Standing, Standings, follow
from polywan.core.journal.ends import NO_ENDS, Ends, exchanged
from polywan.core.journal.hooks import with_hooks
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.selection import unserved_policies
from polywan.core.policy.uplink_state import BUSY, OUT, SERVING, UplinkState, UplinkView, judge_family
from polywan.core.state import outages as past
from polywan.core.state.effects import Level, Log
from polywan.core.state.logged import Flaps, Logged, Waiting
from polywan.core.state.state import State
from polywan.core.words import lasted, listed, ordinal
from polywan.core.world.paths import NoPath, Path, UplinkFamily

POLICY_FOLD: Final = 0.5
"""Seconds within which changes of policies are told as one."""

EXCHANGE: Final = 1.0
"""Seconds within which an address that goes, one that comes and a new gateway are one change."""

FLAPPING: Final = 3
"""Losses of a link within one outage from which it is said to flap."""

WANTED_STATES: Final = (UplinkState.UP, UplinkState.DISABLED, UplinkState.DRAINING, UplinkState.DRAINED)
"""States that somebody wants."""


def tell(old: State, new: State, now: float) -> tuple[Logged, tuple[Log, ...]]:
    """Return what has been told after a decision, and the notes that tell it.

    Args:
        old: the state before the decision; what was told so far is in it.
        new: the state after it.
        now: monotonic seconds.
    """
    writer = _Writer(old, new, now)
    notes = (*writer.uplinks(), *writer.links(), *writer.policies())
    return writer.logged(), notes


_ENDS: Final[PerKey[UplinkFamily, Ends]] = PerKey()


def _text_of(path: Path) -> Ends:
    return Ends(*(str(end) if end else None for end in (next(iter(path.addresses), None), path.via)))


def ends_of(state: State, key: UplinkFamily) -> Ends | None:
    """Return address and gateway of an uplink in a family; None when that is not known: its link is down."""
    reached = state.decision.reach[key]
    path = reached.path if isinstance(reached, NoPath) else reached
    if path is not None:
        known = _ENDS.get(key, path)
        return _ENDS.put(key, _text_of(path), path) if known is None else known
    if state.known.config is None or state.known.observed is None:
        return None
    link = state.known.observed.links.get(state.known.config.uplinks[key[0]].interface)
    if link is None or not (link.up and link.carrier):
        return None
    address = next(iter(state.known.observed.addresses_of(link.name, key[1])), None)
    return Ends(str(address.ip) if address else None, None)


def held_for(state: State, key: UplinkFamily, now: float) -> float | None:
    """Return for how many more seconds an uplink that answers again is held down; None when it is not."""
    probes = state.health.rounds.get(key)
    if probes is None or probes.health is Health.UP or not (probes.good and probes.proven) or probes.together:
        return None
    remaining = probes.good_since + dm.hold_of(probes.damping, state.known.probing[key[0]]) - now
    return remaining if remaining > 0 else None


def record(old: State, new: State, logged: Logged, now: float) -> tuple[Standings, tuple[Change, ...]]:
    """Return what the journal knows after a decision, and what it is told, which is what the log was told.

    Args:
        old: the state before the decision.
        new: the state after it.
        logged: what was told by now.
        now: monotonic seconds.
    """
    known, views = old.done.standings, new.decision.views
    changed = {name for name, seen in views.items() if _may_differ(old, logged, name, seen)}
    if logged.ends != old.done.logged.ends:
        changed = {*views}
    if old.ready and not changed and known.keys() == views.keys():
        return known, ()
    found = probing.found(new)
    seen = {n: _standing(new, logged, n, found, known.get(n)) if n in changed else known[n] for n in views}
    standings, changes = follow(known, seen, now, first=not old.ready)
    return standings, with_hooks(known, standings, changes, None if old.ready else _lost_meanwhile(old, new))


def _may_differ(old: State, logged: Logged, name: str, seen: UplinkView) -> bool:
    """False when neither what decisions say of an uplink nor what was told of it is new, nor its name."""
    known, state = old.done.standings.get(name), logged.states.get(name)
    if known is None or known.uplink != name or state != old.done.logged.states.get(name):
        return True
    return seen is not old.decision.views.get(name) or (state is not None and state[0] is not known.state)


def _standing(state: State, logged: Logged, name: str, found: Findings, known: Standing | None) -> Standing:
    """What there is to record of an uplink; what is not told yet is as it was."""
    view = state.decision.views[name]
    state_logged, since = logged.states.get(name, (None, 0.0))
    if state_logged is not view.state and known is not None:
        return known
    families = [family for family in FAMILIES if (name, family) in state.decision.reach]
    judged = {f: judge_family((name, f), state.decision.reach, state.health.rounds, found)[0] for f in families}
    asked = view.state in (*SERVING, UplinkState.DOWN)
    return Standing(
        uplink=name,
        interface=state.known.config.uplinks[name].interface if state.known.config else "",
        state=view.state,
        reason=view.reason,
        families={f: word is not UplinkState.DOWN for f, word in judged.items()} if asked else {},
        ends={f: logged.ends[name, f] for f in families if (name, f) in logged.ends},
        since=since,
        ends_since=since,
    )


def _lost_meanwhile(old: State, new: State) -> frozenset[str]:
    """Return the uplinks of which an outage began with this decision."""
    before, after = old.known.memory.outages, new.known.memory.outages
    return frozenset(name for name, history in after.items() if history.lasting and history is not before.get(name))


class _Writer:
    """One decision's notes, and what is told by then."""

    def __init__(self, old: State, new: State, now: float) -> None:
        self._old, self._new, self._now = old, new, now
        logged = old.done.logged
        self._states = {name: seen for name, seen in logged.states.items() if name in new.decision.views}
        self._ends = {key: ends for key, ends in logged.ends.items() if key in new.decision.reach}
        self._policies = dict(logged.policies)
        self._flaps = {name: flaps for name, flaps in logged.flaps.items() if name in new.decision.views}
        self._held = {name for name in logged.held if name in new.decision.views}
        self._waits: dict[Waiting, float] = {}

    def logged(self) -> Logged:
        """Return what is told by now."""
        return Logged(
            states=self._states,
            ends=self._ends,
            policies=self._policies,
            flaps=self._flaps,
            held=frozenset(self._held),
            waits=self._waits,
            seen=self._new.known.observed,
        )

    def uplinks(self) -> Iterator[Log]:
        """Tell of states."""
        for name, seen in self._new.decision.views.items():
            before, since = self._states.get(name, (None, self._now))
            if seen.state is not before and self._settled(name, seen.state, before):
                yield self._change(name, seen, before, self._now - since)
                self._states[name] = (seen.state, self._began(name, seen))
                if seen.state not in OUT:
                    self._flaps.pop(name, None)
                    self._held.discard(name)
            yield from self._meanwhile(name, seen)

    def links(self) -> Iterator[Log]:
        """Tell of addresses and gateways."""
        if self._same_ends():
            return
        for key, path in self._new.decision.reach.items():
            waiting: Waiting = ("ends", f"{key[0]} {key[1]}")
            if path == self._old.decision.reach.get(key) and waiting not in self._old.done.logged.waits:
                continue
            ends, known = ends_of(self._new, key), self._ends.get(key)
            if known is None and not self._old.ready:
                ends = self._found_ends(key, ends)
            if ends is None or ends == known:
                continue
            if known is None and not self._old.ready:
                self._ends[key] = ends
            elif self._due(waiting, EXCHANGE):
                text = exchanged(known or NO_ENDS, ends)
                self._ends[key] = ends
                if text:
                    yield Log(Level.INFO, "uplink.address", f"{key[0]}: {text}")

    def _found_ends(self, key: UplinkFamily, ends: Ends | None) -> Ends | None:
        """Return what a new daemon takes for told: after a boot an address comes later, and is then the one before."""
        name, family = key
        before, config = self._old.done.standings.get(name), self._new.known.config
        known = before.ends.get(family) if before else None
        if before is None or known is None or config is None or config.uplinks[name].interface != before.interface:
            return ends
        if ends is None or ends.address is None:
            return known
        without = Ends(known.address, None)
        return known if ends == without and self._new.decision.views[name].state in OUT else ends

    def _same_ends(self) -> bool:
        """True when nothing was read that could have changed them: a link's flags decide while others wait for it."""
        seen, logged = self._new.known.observed, self._old.done.logged
        if seen is None or logged.seen is None or any(kind == "ends" for kind, _ in logged.waits):
            return False
        return seen.addresses is logged.seen.addresses and seen.defaults is logged.seen.defaults

    def policies(self) -> Iterator[Log]:
        """Tell which policies nobody well serves, and which are served again."""
        config, selection = self._new.known.config, self._new.decision.selection
        if config is None or selection is None:
            return
        now = unserved_policies(config, selection)
        if now == self._policies or not self._due(("policies", ""), POLICY_FOLD):
            return
        for policy, text in now.items():
            if text != self._policies.get(policy):
                yield Log(Level.WARNING, "policy.forced", text)
        for policy, text in self._policies.items():
            served = dict.fromkeys(
                name for family in FAMILIES for name, _ in self._members(policy, family) if policy not in now
            )
            if served:
                yield Log(Level.INFO, "policy.served", f"{text.split(':')[0]}: served again by {listed(list(served))}")
        self._policies = now

    def _members(self, policy: str, family: Family) -> tuple[tuple[str, int], ...]:
        choice = self._new.decision.selection.choices.get((policy, family)) if self._new.decision.selection else None
        return choice.members if choice else ()

    def _due(self, what: Waiting, wait: float) -> bool:
        """True once it has waited for so long; until then it waits."""
        at = self._old.done.logged.waits.get(what, self._now + wait)
        if at > self._now:
            self._waits[what] = at
        return at <= self._now

    def _settled(self, name: str, state: UplinkState, before: UplinkState | None) -> bool:
        """Wait for the other family of an uplink that returns in one."""
        if state is not UplinkState.DEGRADED or before not in OUT:
            return True
        settings = self._new.known.probing[name]
        return self._due(("state", name), settings.interval + settings.timeout)

    def _began(self, name: str, seen: UplinkView) -> float:
        """Return when it came to its state: an uplink that returns in one family returns with that."""
        due = self._old.done.logged.waits.get(("state", name))
        if due is None:
            return seen.since
        settings = self._new.known.probing[name]
        return min(seen.since, due - settings.interval - settings.timeout)

    def _change(self, name: str, seen: UplinkView, before: UplinkState | None, seconds: float) -> Log:
        level = Level.INFO if seen.state in WANTED_STATES else Level.WARNING
        text = f"{name} is {seen.state}: {seen.reason}"
        if seen.state in OUT:
            text += self._how_often(name, least=2) if before in SERVING else ""
        elif seen.state in SERVING and before in OUT:
            text = self._returned(name, seen, seconds)
        elif seen.state is UplinkState.DEGRADED and seen.reason.startswith(BUSY):
            level, text = Level.INFO, f"{name} is {seen.reason}"
        elif seen.state is UplinkState.UP and before is UplinkState.DEGRADED:
            text = f"{name} is healthy again after {lasted(seconds)}"
        elif seen.state is UplinkState.UP:
            text = f"{name} is up{self._by(name)}"
        return Log(level, f"uplink.{seen.state}", text)

    def _returned(self, name: str, seen: UplinkView, seconds: float) -> str:
        history = self._new.known.memory.outages.get(name)
        outage = history.ended if history and not history.lasting else None
        # What was down from the start had no outage: the last one is from before.
        if outage and outage.began + (outage.lasted or 0.0) <= self._now - seconds + self._new.known.unix:
            outage = None
        after = f" again after {lasted(outage.lasted or 0.0)}" if outage else ""
        if seen.state is UplinkState.DEGRADED:
            text = f"{name} serves{after}, but is degraded: {seen.reason}"
        else:
            text = f"{name} is up{after}"
        text += self._how_often(name, least=1) if outage else ""
        flaps = self._flaps.get(name)
        text += f"; its link was lost {flaps.count} times meanwhile" if flaps and flaps.count >= FLAPPING else ""
        return text + self._by(name)

    def _how_often(self, name: str, least: int) -> str:
        state = self._new
        number = past.today(state.known.memory.outages.get(name), self._now + state.known.unix, state.known.zone)
        return f" ({ordinal(number)} outage today)" if number >= least else ""

    def _by(self, name: str) -> str:
        """Say by which addresses and gateways, which are told by that."""
        parts = []
        for family in FAMILIES:
            ends = ends_of(self._new, (name, family)) if (name, family) in self._new.decision.reach else None
            if ends is not None and ends.address is not None:
                self._ends[name, family] = ends
                parts.append(f"address {ends.address}" + (f", gateway {ends.gateway}" if ends.gateway else ""))
        return f": {'; '.join(parts)}" if parts else ""

    def _meanwhile(self, name: str, seen: UplinkView) -> Iterator[Log]:
        """Tell of a link that flaps, and of an uplink that answers again and is held."""
        if seen.state not in OUT:
            return
        if any(self._went_away((name, family)) for family in FAMILIES):
            known = self._flaps.get(name, Flaps(0, self._now))
            self._flaps[name] = Flaps(known.count + 1, known.first)
            if known.count + 1 == FLAPPING:
                yield Log(Level.WARNING, "uplink.flapping", self._flapping(name, self._now - known.first))
        held = [(remaining, family) for family in FAMILIES if (remaining := self._held_back((name, family)))]
        if held and name not in self._held:
            self._held.add(name)
            remaining, family = max(held)
            damping = self._new.health.rounds[name, family].damping
            often = f": lost {damping.losses} times in {dm.spoken(self._now - damping.first)}"
            yield Log(
                Level.INFO, "uplink.held", f"{name} answers again; hold-down for another {lasted(remaining)}{often}"
            )

    def _went_away(self, key: UplinkFamily) -> bool:
        return isinstance(self._old.decision.reach.get(key), Path) and isinstance(
            self._new.decision.reach.get(key), NoPath
        )

    def _held_back(self, key: UplinkFamily) -> float | None:
        """Seconds left for one that was lost more than once in a row; the first hold-down is no news."""
        probes = self._new.health.rounds.get(key)
        if probes is None or probes.damping.losses < 2 or probes.good < self._new.known.probing[key[0]].rise:
            return None
        return held_for(self._new, key, self._now)

    def _flapping(self, name: str, seconds: float) -> str:
        probes = [p for (n, _), p in self._new.health.rounds.items() if n == name]
        hold = max((dm.hold_of(p.damping, self._new.known.probing[name]) for p in probes), default=0.0)
        return (
            f"{name} is flapping: its link was lost {FLAPPING} times in {lasted(seconds)}; "
            f"it serves again after answering for {lasted(hold)}"
        )
