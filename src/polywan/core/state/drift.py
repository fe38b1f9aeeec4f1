"""Drift: what another program changed of what polywan wrote, on the very object that it was written on.

A device that was made anew is another object, under whatever name. What the kernel dropped by itself, with a device,
an address or a link that went down, no program has changed either, and neither what it has refused to take.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from polywan.config.model.shaping import IFB_PREFIX
from polywan.core.evolve import replace
from polywan.core.net import Family
from polywan.core.plan.plan import (
    ActualState,
    AddRule,
    DelRoute,
    DelRule,
    Op,
    Plan,
    PutNexthop,
    PutRoute,
    SetSysctl,
    headline,
)
from polywan.core.resolved import Resolved
from polywan.core.routing.sysctls import Sysctl
from polywan.core.shaping.changes import PutRedirect, PutTree
from polywan.core.state.effects import Level, Log

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
        written: settings that had our value when they were last seen or written, each with the index of its device.
        unheard: notifications were lost since the last read: a link may have been down, or without an address.
        mended: what the last repair put right.
        culprit: who touched our things, as far as the kernel told, until the next repair names them.
    """

    times: tuple[float, ...] = ()
    written: Mapping[str, int] = field(default_factory=dict)
    unheard: bool = False
    mended: tuple[Mended, ...] = ()
    culprit: str = ""


def pause(repairs: Repairs, now: float) -> float:
    """Return seconds to wait before the next repair; 0 means go ahead."""
    recent = _recent(repairs, now)
    return max(0.0, recent[-1] + REPAIR_PAUSE - now) if len(recent) >= REPAIRS else 0.0


def after(repairs: Repairs, repaired: Iterable[Op], now: float) -> Repairs:
    """Return what is known after a read, once what it showed was `repaired`, if anything."""
    mended = tuple(Mended(now, headline(op), device_of(op)) for op in repaired)
    times = (*_recent(repairs, now), *([now] if mended else ()))
    return Repairs(times=times, written=repairs.written, mended=mended or repairs.mended)


def written(repairs: Repairs, desired: Iterable[Sysctl], actual: ActualState, plan: Plan, *, all_seen: bool) -> Repairs:
    """Return what is known of settings, once a plan is carried out.

    Args:
        repairs: what was known.
        desired: all that are wanted.
        actual: what the kernel held when the plan was made.
        plan: what is written.
        all_seen: the kernel was just read, so that what is wanted and not in the plan is there.
    """
    if all_seen:
        return replace(repairs, written={s.path: _object(s, actual) for s in desired if s.path in actual.sysctls})
    new = {op.sysctl.path: _object(op.sysctl, actual) for op in plan.ops if isinstance(op, SetSysctl)}
    return replace(repairs, written={**repairs.written, **new}) if new else repairs


def _object(sysctl: Sysctl, actual: ActualState) -> int:
    """Return the index of the device that a setting was read from; 0 for what belongs to none."""
    return actual.devices.get(device_of_setting(sysctl) or "", 0)


def repair_log(ops: Sequence[Op], culprit: str) -> Log:
    """Return what the log says of a repair."""
    what = "; ".join(headline(op) for op in ops[:4]) + ("; …" if len(ops) > 4 else "")
    return Log(Level.WARNING, "drift.repaired", f"repaired changes made by {culprit or 'another program'}: {what}")


def _recent(repairs: Repairs, now: float) -> tuple[float, ...]:
    return tuple(at for at in repairs.times if now - at < WINDOW)


def by_others(
    plan: Plan, repairs: Repairs, actual: ActualState, lost: Collection[tuple[str, Family]], undone: Collection[Op]
) -> tuple[Op, ...]:
    """Return the operations that undo what another program did.

    Args:
        plan: what has to be done, though nothing was decided anew.
        repairs: what was known before the read.
        actual: what the read found.
        lost: links that lost an address since the read before, each with the family.
        undone: operations that the kernel has refused.
    """
    return tuple(op for op in plan.ops if op not in undone and _by_others(op, repairs, actual, lost))


def _by_others(op: Op, repairs: Repairs, actual: ActualState, lost: Collection[tuple[str, Family]]) -> bool:
    match op:
        case SetSysctl(sysctl):
            return repairs.written.get(sysctl.path) == _object(sysctl, actual)
        case PutRoute(route):
            # With the last address of IPv4 go all routes by that link, and with any address those that prefer it.
            whole = route.source is not None or route.nexthop is not None
            fell = any(route.family is family and (whole or route.link == link) for link, family in lost)
            return not (fell or repairs.unheard)
        case PutNexthop():
            return not (lost or repairs.unheard)
        case _:
            return True


def shown(known: Iterable[Mended], config: Resolved | None, now: float) -> Iterator[str]:
    """Yield what is still worth telling: neither long ago, nor about a device that the file does not name any more."""
    devices = {uplink.interface for uplink in config.uplinks.values()} if config else set()
    for one in known:
        if (now == inf or now - one.at < REPORTED_FOR) and (one.device is None or one.device in devices):
            yield one.text


def device_of(op: Op) -> str | None:
    """Return the device that an operation is about, None when it is about none in particular."""
    match op:
        case SetSysctl(sysctl):
            return device_of_setting(sysctl)
        case PutRoute() | DelRoute():
            return op.route.link
        case AddRule() | DelRule():
            return op.rule.oif
        case PutTree() | PutRedirect():
            return op.device if not op.device.startswith(IFB_PREFIX) else None
        case _:
            return None


def device_of_setting(sysctl: Sysctl) -> str | None:
    """Return the device that a setting belongs to, None when it is the box's."""
    parts = sysctl.path.split("/")
    one = len(parts) == 5 and parts[2] in {"conf", "neigh"} and parts[3] not in {"all", "default"}
    return parts[3] if one else None
