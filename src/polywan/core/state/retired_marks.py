"""Marks of uplinks and policies that a reload removed: dead for a while, so that whoever still carries one is let go.

A daemon that starts finds those of the one before it in the kernel's dead sets, and goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias

from polywan.core.net import FAMILIES, MarkLayout
from polywan.core.ruleset.model import NftState

RETIREMENT: Final = 600.0
"""Seconds for which a removed mark is dead. Clients were told at once; this is for those that were out of reach."""

Retired: TypeAlias = Mapping[int, float]
"""Removed marks, and until when they are dead (monotonic seconds)."""


def removed(known: Retired, gone: Iterable[int], marks: Collection[int], now: float) -> Retired:
    """Return what is retired once the marks in `gone` were removed, and those in `marks` are given out."""
    return {mark: end for mark, end in {**known, **dict.fromkeys(gone, now + RETIREMENT)}.items() if mark not in marks}


def found(nft: NftState | None, layout: MarkLayout, marks: Collection[int], now: float) -> Retired:
    """Return what the kernel's dead sets hold beside marks that are given out; for the first decision of a daemon."""
    sets = nft.sets if nft is not None else {}
    dead = {mark for family in FAMILIES for mark in sets.get(f"dead_{family}", ()) if isinstance(mark, int)}
    return {mark: now + RETIREMENT for mark in dead - {*marks, layout.reserved} if not mark & layout.keep}


def still_retired(known: Retired, now: float) -> Retired:
    """Return those whose time is not over."""
    return {mark: end for mark, end in known.items() if end > now}


def due(known: Retired) -> float:
    """Return when the first of them is over; endless without any."""
    return min(known.values(), default=float("inf"))
