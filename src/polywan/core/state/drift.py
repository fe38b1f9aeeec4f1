"""Differences that somebody else made: which operations of a plan put one right, and for how long people are told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from polywan.core.plan.plan import AddRule, DelRoute, DelRule, Op, Plan, PutRoute, SetSysctl, headline
from polywan.core.resolved import Resolved
from polywan.core.state.effects import Level, Log
from polywan.core.world.observed import Observed

REPAIRS: Final = 5
"""Repairs within `WINDOW` seconds that are made at once; more of them is a fight with another program."""

WINDOW: Final = 10.0

REPAIR_PAUSE: Final = 2.0
"""Seconds between repairs during such a fight."""

REPORTED_FOR: Final = 3600.0
"""Seconds for which `status` tells what was put right."""


@dataclass(frozen=True, slots=True)
class Mended:
    """One operation that put something right, for people: when (monotonic seconds), and of which device, if of one."""

    at: float
    text: str
    device: str | None


@dataclass(frozen=True, kw_only=True)
class Repairs:
    """What was done about changes by others; without slots, for `evolve.replace`.

    Attributes:
        times: of recent repairs, monotonic seconds.
        devices: index of every device at the last read; one that was made anew has another.
        mended: what the last repair put right.
        culprit: who touched our things, as far as the kernel told, until the next repair names them.
    """

    times: tuple[float, ...] = ()
    devices: Mapping[str, int] = field(default_factory=dict)
    mended: tuple[Mended, ...] = ()
    culprit: str = ""


def pause(repairs: Repairs, now: float) -> float:
    """Return seconds to wait before the next repair; 0 means go ahead."""
    recent = _recent(repairs, now)
    return max(0.0, recent[-1] + REPAIR_PAUSE - now) if len(recent) >= REPAIRS else 0.0


def after(repairs: Repairs, observed: Observed, repaired: Iterable[Op], now: float) -> Repairs:
    """Return what is known after a read, once what it showed was `repaired`, if anything."""
    mended = tuple(Mended(now, headline(op), device_of(op)) for op in repaired)
    times = (*_recent(repairs, now), *([now] if mended else ()))
    indexes = {name: link.index for name, link in observed.links.items()}
    return Repairs(times=times, devices=indexes, mended=mended or repairs.mended)


def repair_log(ops: Sequence[Op], culprit: str) -> Log:
    """Return what the log says of a repair."""
    what = "; ".join(headline(op) for op in ops[:4]) + ("; …" if len(ops) > 4 else "")
    return Log(Level.WARNING, "drift.repaired", f"repaired changes made by {culprit or 'another program'}: {what}")


def _recent(repairs: Repairs, now: float) -> tuple[float, ...]:
    return tuple(at for at in repairs.times if now - at < WINDOW)


def by_others(plan: Plan, originals: Collection[str], new: Collection[str]) -> tuple[Op, ...]:
    """Return the operations that undo what somebody else did.

    A setting's first write is none of them, and neither are the settings of a device that was just made: nobody has
    changed those, the kernel began with its defaults.

    Args:
        plan: what has to be done, though nothing was decided anew.
        originals: paths of the settings that were written before.
        new: devices that are not the ones of the read before.
    """
    return tuple(
        op
        for op in plan.ops
        if not isinstance(op, SetSysctl) or (op.sysctl.path in originals and device_of(op) not in new)
    )


def remade(known: Mapping[str, int], observed: Observed) -> frozenset[str]:
    """Return the devices that were made since their indexes were `known`."""
    return frozenset(name for name, link in observed.links.items() if known.get(name) != link.index)


def shown(known: Iterable[Mended], config: Resolved | None, now: float) -> Iterator[str]:
    """Yield what is still worth telling: neither long ago, nor about a device that the file does not name any more."""
    devices = {uplink.interface for uplink in config.uplinks.values()} if config else set()
    for one in known:
        if (now == inf or now - one.at < REPORTED_FOR) and (one.device is None or one.device in devices):
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
