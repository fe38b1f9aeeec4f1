"""Differences that somebody else made: which operations of a plan put one right, and for how long people are told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from polywan.config import Config
from polywan.core.observed import Observed
from polywan.core.plan import AddRule, DelRoute, DelRule, Op, Plan, PutRoute, SetSysctl, headline

TOLD: Final = 3600.0
"""Seconds for which `status` tells what was put right."""


@dataclass(frozen=True, slots=True)
class Mended:
    """One operation that put something right, for people: when (monotonic seconds), and of which device, if of one."""

    at: float
    text: str
    device: str | None


def by_others(plan: Plan, originals: Collection[str], fresh: Collection[str]) -> tuple[Op, ...]:
    """Return the operations that undo what somebody else did.

    A setting's first write is none of them, and neither are the settings of a device that was just made: nobody has
    changed those, the kernel began with its defaults.

    Args:
        plan: what has to be done, though nothing was decided anew.
        originals: paths of the settings that were written before.
        fresh: devices that are not the ones of the read before.
    """
    return tuple(
        op
        for op in plan.ops
        if not isinstance(op, SetSysctl) or (op.sysctl.path in originals and device_of(op) not in fresh)
    )


def fresh(known: Mapping[str, int], observed: Observed) -> frozenset[str]:
    """Return the devices that were made since their indexes were `known`."""
    return frozenset(name for name, link in observed.links.items() if known.get(name) != link.index)


def indexes(observed: Observed) -> dict[str, int]:
    """Return the index of every device: one that is made anew has another, though the same name."""
    return {name: link.index for name, link in observed.links.items()}


def mended(ops: Iterable[Op], now: float) -> tuple[Mended, ...]:
    """Return what people are told about operations that put something right."""
    return tuple(Mended(now, headline(op), device_of(op)) for op in ops)


def shown(known: Iterable[Mended], config: Config | None, now: float) -> Iterator[str]:
    """Yield what is still worth telling: neither long ago, nor about a device that the file does not name any more."""
    devices = {uplink.interface for uplink in config.uplinks.values()} if config else set()
    for one in known:
        if (now == inf or now - one.at < TOLD) and (one.device is None or one.device in devices):
            yield one.text


def device_of(op: Op) -> str | None:
    """Return the device that an operation is about, None when it is about none in particular."""
    match op:
        case SetSysctl():
            parts = op.sysctl.path.split("/")
            one = len(parts) == 5 and parts[2] in {"conf", "neigh"} and parts[3] not in {"all", "default"}
            return parts[3] if one else None
        case PutRoute() | DelRoute():
            return op.route.link
        case AddRule() | DelRule():
            return op.rule.oif
        case _:
            return None
