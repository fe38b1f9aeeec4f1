"""When connections on the fast path have to be judged anew, because routes or the rules of others have changed.

The kernel notices part of that by itself (`core/ruleset/fast_path.py`). The table is written again once the first
notification and its neighbours are taken in, and then at most every `PAUSE`: a router with a full routing table hears
of changes all the time.
"""

from __future__ import annotations

from math import inf
from typing import Final

from polywan.core.evolve import replace
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.state.effects import Hold
from polywan.core.state.events import AddressLost, EventsLost, ForeignStateChanged, KernelEvent, OwnStateChanged
from polywan.core.state.state import State

PAUSE: Final = 0.25
"""Seconds between two times at least."""

GATHER_TIME: Final = 0.002
"""Seconds that the first waits: a device that goes tells of its routes and addresses before of itself, and what the
decision about it writes may be this very table."""

_DECIDES: Final = frozenset({"rule", "route", "nexthop", "chain", "filter", "elements"})
"""Changes by others after which a packet may be treated differently."""


def wanted(state: State) -> bool:
    """True where there is a fast path, or might be one if rules of others were different."""
    config, observed = state.known.config, state.known.observed
    return config is not None and observed is not None and config.global_.fastpath == "auto" and observed.flowtable


def heard(state: State, event: KernelEvent, now: float) -> State:
    """Ask for it when a notification may mean that a packet would be treated differently now."""
    match event:
        case ForeignStateChanged(what) if what in _DECIDES:
            pass
        # Of our main table only what it holds is told: what is on the fast path does not meet it. It meets queues.
        case OwnStateChanged(what) if what not in {"table", "qdisc"}:
            pass
        case AddressLost() | EventsLost():
            pass
        case _:
            return state
    if FAST_TABLE not in state.decision.held:
        return state
    at = min(state.agenda.renew_at, max(now + GATHER_TIME, state.agenda.renewed + PAUSE))
    return replace(state, agenda=replace(state.agenda, renew_at=at))


def renew(state: State, now: float) -> tuple[State, tuple[Hold, ...]]:
    """Write the table again, so that every connection takes the slow path once."""
    table = state.decision.held.get(FAST_TABLE)
    due = replace(state.agenda, renew_at=inf, renewed=now)
    return replace(state, agenda=due), () if table is None else (Hold(FAST_TABLE, table),)
