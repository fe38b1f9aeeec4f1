"""From the queues that are there to those that should be: operations, and what they leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, TypeAlias, assert_never

from polywan.core.identity import Same
from polywan.core.shaping.shapers import NONE_WANTED, Shapers
from polywan.core.shaping.trees import MOST_TREES, handle_text, words
from polywan.core.world.queues import STAMP, DeviceQueues, Part, Queues

_CHANGEABLE: Final = frozenset({"cake", "class", "fq_codel", "prio"})
"""Kinds whose options the kernel changes in place, without a packet lost; others are made anew with their tree."""


@dataclass(frozen=True, slots=True)
class PutIfb:
    """Make one of our ifb devices; `there` for one that was set down."""

    device: str
    there: bool = False


@dataclass(frozen=True, slots=True)
class DelIfb:
    """Remove one of our ifb devices."""

    device: str


@dataclass(frozen=True, slots=True)
class PutTree:
    """Add parts of a tree to a device, or change them; another program's root is never replaced."""

    device: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class DelTree:
    """Remove our root from a device; the kernel puts its default there.

    Attributes:
        index: of the device that was looked at; another one of its name is left alone.
        any_root: whatever root it is, of an ifb of ours.
    """

    device: str
    index: int
    any_root: bool = False


@dataclass(frozen=True, slots=True)
class PutRedirect:
    """Send what comes in by a device to an ifb device of ours."""

    device: str
    to: str


@dataclass(frozen=True, slots=True)
class DelRedirect:
    """Stop that; another device of that name is left alone."""

    device: str
    index: int


ShapingOp: TypeAlias = PutIfb | DelIfb | PutTree | DelTree | PutRedirect | DelRedirect


def step_of(op: ShapingOp) -> int:
    """Order of an operation among others: nothing is sent to a device before its queue is there, or after it."""
    match op:
        case DelRedirect():
            return 0
        case DelTree():
            return 1
        case PutIfb():
            return 2
        case PutTree():
            return 3
        case PutRedirect():
            return 4
        case DelIfb():
            return 5
        case _:
            assert_never(op)


def changes(desired: Shapers, actual: Queues | None) -> tuple[ShapingOp, ...]:
    """Return the operations that lead from what is there to what should be; none when nobody has looked."""
    return () if actual is None else _changes(Same(desired), Same(actual))


@lru_cache(maxsize=4)  # as long as neither is another object
def _changes(wanted: Same[Shapers], there: Same[Queues]) -> tuple[ShapingOp, ...]:
    return tuple(_operations(wanted.value, there.value))


def _operations(desired: Shapers, actual: Queues) -> Iterator[ShapingOp]:
    for device, known in actual.devices.items():
        wanted = desired.redirects.get(device)
        if known.redirect is not None and known.redirect != wanted:
            yield DelRedirect(device, known.index)
        if known.tree and device not in desired.trees and device not in actual.ifbs:
            yield DelTree(device, known.index)
    for ifb in sorted(desired.ifbs):
        if not actual.ifbs.get(ifb, False):
            yield PutIfb(ifb, there=ifb in actual.ifbs)
    for device, parts in desired.trees.items():
        yield from _tree(device, parts, actual.devices.get(device, _NEW), ifb=device in desired.ifbs)
    for device, to in desired.redirects.items():
        there = actual.devices.get(device)
        if there is None or there.redirect != to:
            yield PutRedirect(device, to)
    yield from (DelIfb(ifb) for ifb in sorted(actual.ifbs) if ifb not in desired.ifbs)


_NEW: Final = DeviceQueues(index=0)


def _tree(device: str, wanted: tuple[Part, ...], known: DeviceQueues, *, ifb: bool) -> Iterator[DelTree | PutTree]:
    there = known.tree
    if there == _set(Same(wanted)):
        return
    places = {part.place: part for part in wanted}
    changed = [part for part in there if part not in wanted]
    if any(part.place not in places or part.kind not in _CHANGEABLE for part in changed):
        yield DelTree(device, known.index, any_root=ifb)
        yield PutTree(device, wanted)
    else:
        yield PutTree(device, tuple(part for part in wanted if part not in there))


@lru_cache(maxsize=MOST_TREES)  # a part takes a microsecond to hash
def _set(parts: Same[tuple[Part, ...]]) -> frozenset[Part]:
    return frozenset(parts.value)


def removal_of(actual: Queues | None) -> tuple[ShapingOp, ...]:
    """Return the operations that remove all of ours."""
    return changes(NONE_WANTED, actual)


def assumed(desired: Shapers, actual: Queues | None) -> Queues | None:
    """Return what is there if every operation succeeds."""
    if actual is None or not changes(desired, actual):
        return actual
    devices = {
        name: replace(known, tree=_set(Same(desired.trees.get(name, ()))), redirect=desired.redirects.get(name))
        for name, known in actual.devices.items()
        if name not in actual.ifbs or name in desired.ifbs
    }
    # The kernel numbers a new device; nothing asks for the number of an ifb.
    devices |= {
        ifb: DeviceQueues(index=0, tree=_set(Same(desired.trees[ifb]))) for ifb in desired.ifbs if ifb not in devices
    }
    return replace(actual, devices=devices, ifbs=dict.fromkeys(desired.ifbs, True))


def describe_shaping(op: ShapingOp) -> str:
    """The operation in the words of tc(8) and ip(8); a tree has a line for each of its parts."""
    match op:
        case PutIfb(device, there):
            return f"+ link  {device} up" if there else f"+ link  {device} type ifb"
        case DelIfb(device):
            return f"- link  {device} type ifb"
        case PutTree(device, parts):
            return "\n".join(f"+ {words(device, part)}" for part in parts)
        case DelTree(device, _, any_root):
            return f"- qdisc dev {device} root" + ("" if any_root else f" handle {handle_text(STAMP << 16)}")
        case PutRedirect(device, to):
            return f"+ qdisc dev {device} ingress, all packets to {to}"
        case DelRedirect(device):
            return f"- qdisc dev {device} ingress"
        case _:
            assert_never(op)
