"""Metrics of policies: which tier serves, which uplinks, and how often others took over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from polywan.api.status import ChoiceStatus, Status
from polywan.core.metrics.metric import Kind, Metric, Point, Read

_LABELS: Final = ("policy", "family")


def _each(value: Callable[[ChoiceStatus], float | None]) -> Read:
    return lambda status: (
        Point((policy.name, family), value(choice))
        for policy in status.policies
        for family, choice in policy.families.items()
    )


def _members(status: Status) -> Iterator[Point]:
    for policy in status.policies:
        for family, choice in policy.families.items():
            for member in choice.members:
                yield Point((policy.name, family, member.uplink), member.share)


def _failovers(status: Status) -> Iterator[Point]:
    for policy, families in (status.totals.failovers if status.totals else {}).items():
        for family, number in families.items():
            yield Point((policy, family), number)


POLICIES: Final = (
    Metric(
        "polywan_policy",
        Kind.INFO,
        "What people call the policy, and how it balances.",
        ("policy", "title", "algorithm"),
        lambda status: (Point((policy.name, policy.title, policy.algorithm), None) for policy in status.policies),
    ),
    Metric(
        "polywan_policy_active_tier",
        Kind.GAUGE,
        "Number of the tier that serves, counted from 0; absent while the last resort applies.",
        _LABELS,
        _each(lambda choice: choice.active_tier),
    ),
    Metric(
        "polywan_policy_members",
        Kind.GAUGE,
        "Uplinks that serve the policy.",
        _LABELS,
        _each(lambda choice: len(choice.members)),
    ),
    Metric(
        "polywan_policy_share_ratio",
        Kind.GAUGE,
        "Share of the policy's new connections that an uplink is given.",
        (*_LABELS, "uplink"),
        _members,
    ),
    Metric(
        "polywan_policy_failovers",
        Kind.COUNTER,
        "How often other uplinks took over the policy's new connections from one that was lost.",
        _LABELS,
        _failovers,
    ),
)
