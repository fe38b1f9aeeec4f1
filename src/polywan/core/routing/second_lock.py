"""A second lock behind the kill switch: policy rules that hold while another program has flushed our table.

The chain `kill_switch` looks at every packet that leaves (core/ruleset/rules.py), and is gone for a moment after ``nft
flush ruleset``. Then nothing marks packets either, and main would lead them out by anybody. So what a rule with `only`
says by addresses and devices is said to routing as well, for packets that are forwarded and carry no mark::

    sender of the rule ──▶ main's specific routes ──▶ the tables of its uplinks ──▶ nowhere

Rules count in file order, so those before it are asked as well; the first that routing cannot ask about ends the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from polywan.config import Match, SteeringRule
from polywan.core.net import Family, IPNetwork
from polywan.core.resolved import Resolved

MOST_LOCKED: Final = 7
"""Rules of the file that are held twice; their places among the policy rules are few."""

MOST_SELECTORS: Final = 64
"""Policy rules that one rule of the file may need."""


@dataclass(frozen=True, slots=True)
class Selector:
    """What a policy rule looks at; None is anything."""

    from_: IPNetwork | None
    to: IPNetwork | None
    iif: str | None


@dataclass(frozen=True, slots=True)
class Locked:
    """One rule of the file as routing sees it: whom it takes, and by which uplinks alone; by any, without `only`."""

    selectors: tuple[Selector, ...]
    only: tuple[str, ...]


Locks = Mapping[Family, tuple[Locked, ...]]


def locks(config: Resolved) -> tuple[tuple[Family, tuple[Locked, ...]], ...]:
    """Return what routing is told of the rules of the file, by family, up to the last with `only`."""
    return tuple((family, _known(config, family)) for family in Family)


def held(config: Resolved) -> frozenset[int]:
    """Return the numbers of the rules with `only`, from 1, that hold while our table is flushed."""
    last = min(len(_known(config, family)) for family in Family)
    return frozenset(n for n, rule in enumerate(config.rules[:last], start=1) if rule.only)


def _known(config: Resolved, family: Family) -> tuple[Locked, ...]:
    found: list[Locked] = []
    if not any(rule.only for rule in config.rules[:MOST_LOCKED]):
        return ()
    for rule in config.rules[:MOST_LOCKED]:
        selectors = _selectors(rule, family)
        if selectors is None:
            break
        found.append(Locked(selectors, rule.only))
    while found and not found[-1].only:
        found.pop()
    return tuple(found)


def _selectors(rule: SteeringRule, family: Family) -> tuple[Selector, ...] | None:
    """Return the policy rules that take just what the rule takes; None when routing cannot tell.

    A rule for everybody could catch what comes back to the inside, so it needs a sender or a device.
    """
    asked = {"from_", "to", "in_interface", "family"}
    plain = all(getattr(rule, name) == field.default for name, field in Match.model_fields.items() if name not in asked)
    if not plain or rule.not_ != Match() or not (rule.from_ or rule.in_interface):
        return None
    if rule.family not in (None, family.nfproto):
        return ()
    senders, targets = (_of(networks, family) for networks in (rule.from_, rule.to))
    found = tuple(Selector(*chosen) for chosen in product(senders, targets, rule.in_interface or (None,)))
    return found if len(found) <= MOST_SELECTORS else None


def _of(networks: tuple[IPNetwork, ...], family: Family) -> Iterator[IPNetwork | None]:
    if not networks:
        yield None
    yield from (network for network in networks if network.version == family)
