"""Large prefix lists are declared ahead of the decision that brings them into use, so that its transaction is small.

Nothing refers to such a set yet, so it does no harm, and the name says what is in it. Until a decision needs it, the
engine does not see it among what the kernel holds: neither to remove it, nor to rely on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polywan.core.evolve import replace
from polywan.core.net import FAMILIES
from polywan.core.plan.plan import ActualState
from polywan.core.ruleset.conditions import list_set
from polywan.core.ruleset.model import NftSet, partial
from polywan.core.ruleset.rules import prefix_set
from polywan.core.state.state import State
from polywan.core.world.lookups import PrefixList

LARGE_LIST: Final = 2000
"""Prefixes from which a list is worth it: libnftables takes some 10 µs for each."""


def ahead(lists: Iterable[PrefixList], state: State) -> dict[str, NftSet]:
    """Return the sets of large lists that the kernel does not hold; none before our table is there."""
    if state.known.actual is None or state.known.actual.nft is None:
        return {}
    there = state.known.actual.nft.sets
    return {
        list_set(found, family): prefix_set(found, family)
        for found in lists
        for family in FAMILIES
        if len(found.of(family)) >= LARGE_LIST and list_set(found, family) not in there
    }


def unseen(actual: ActualState, staged: frozenset[str]) -> ActualState:
    """Return what the kernel holds without the sets that nothing needs yet."""
    if actual.nft is None or staged.isdisjoint(actual.nft.sets):
        return actual
    hidden = staged | {mark for mark in actual.nft.sets if partial([mark]) & staged}
    sets = {name: elements for name, elements in actual.nft.sets.items() if name not in hidden}
    return replace(actual, nft=replace(actual.nft, sets=sets))


def arrived(state: State) -> State:
    """Count staged sets as held by the kernel once the lists that they hold are known."""
    known = state.known.lookups.lists.values()
    ready = state.done.staged & {list_set(found, family) for found in known for family in FAMILIES}
    if not ready or state.known.actual is None or state.known.actual.nft is None:
        return state
    nft = state.known.actual.nft
    held = replace(nft, sets={**nft.sets, **dict.fromkeys(ready, frozenset())})
    return replace(
        state,
        known=replace(state.known, actual=replace(state.known.actual, nft=held)),
        done=replace(state.done, staged=state.done.staged - ready),
    )
