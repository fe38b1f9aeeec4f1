"""Which limit of a quota is passed, and what happens to the uplink for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from polywan.config.model.quota import Quota, QuotaAction
from polywan.core.quota.usage import Usage, available

LESS: Final = 10
"""Percent of its weight that an uplink keeps with the action "less"."""


class Level(StrEnum):
    """How far a quota is used."""

    WITHIN = "within"
    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What is known of the quotas of all uplinks.

    Attributes:
        usages: by uplink; also of those that have no quota any more, since a file may come back.
        restrictions: what follows with the file in force.
        logged: the level of each uplink as of the last line of the log.
    """

    usages: Mapping[str, Usage] = field(default_factory=dict)
    restrictions: Mapping[str, QuotaAction] = field(default_factory=dict)
    logged: Mapping[str, Level] = field(default_factory=dict)


NO_QUOTAS: Final = Quotas()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a quota in bytes, as they are now."""

    soft: int
    hard: int


Restrictions: TypeAlias = Mapping[str, QuotaAction]
"""What quotas do to uplinks, by name; those that are within, or only told of, are left out."""

UNRESTRICTED: Final[Restrictions] = MappingProxyType({})


def limits(usage: Usage, quota: Quota) -> Limits:
    """Return the limits; the soft one is never above the hard one."""
    hard = available(usage, quota)
    soft = quota.soft if isinstance(quota.soft, int) else round(quota.soft * hard)
    return Limits(min(soft, hard), hard)


def level(usage: Usage, quota: Quota) -> Level:
    """Return which limit is passed."""
    found = limits(usage, quota)
    if usage.used >= found.hard:
        return Level.HARD
    return Level.SOFT if usage.used >= found.soft else Level.WITHIN


def action(usage: Usage, quota: Quota) -> QuotaAction | None:
    """Return what happens to the uplink now; None within both limits."""
    match level(usage, quota):
        case Level.WITHIN:
            return None
        case Level.SOFT:
            return quota.at_soft
        case Level.HARD:
            return quota.at_hard


def restrictions(quotas: Mapping[str, Quota], usages: Mapping[str, Usage]) -> Restrictions:
    """Return what choosing has to know of each uplink's quota."""
    found = {name: action(usages[name], quota) for name, quota in quotas.items() if name in usages}
    return {name: act for name, act in found.items() if act is not None and act != "keep"}
