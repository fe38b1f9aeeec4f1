"""Numbers of uplinks and policies, from what the configuration names and what is remembered of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from polywan.config import Config
from polywan.core.marks import Numbers, allocate, numbers
from polywan.core.net import MarkLayout
from polywan.core.policy.policies import marked_policies

POLICY: Final = "policy:"
"""Prefix of policies among the remembered numbers."""


def layout_of(config: Config) -> MarkLayout:
    """Return the mark bits that the configuration gives us."""
    return MarkLayout(config.global_.mark_mask)


def numbers_of(config: Config, ids: Mapping[str, int]) -> dict[str, Numbers]:
    """Return mark, table and priorities of every configured uplink.

    Raises:
        CapacityError: more uplinks than marks.
    """
    return _derived(config, ids, config.uplinks)


def policy_marks_of(config: Config, ids: Mapping[str, int]) -> dict[str, Numbers]:
    """Return mark, table and priorities of the policies that have a number of their own, by the policy's name."""
    found = _derived(config, ids, map(policy_id, marked_policies(config)))
    return {name.removeprefix(POLICY): number for name, number in found.items()}


def policy_id(policy: str) -> str:
    """Return the name under which a policy's number is remembered; no uplink can have it."""
    return POLICY + policy


def numbered(config: Config) -> list[str]:
    """Return every name that needs a number: uplinks, then policies."""
    return [*config.uplinks, *map(policy_id, marked_policies(config))]


def _derived(config: Config, ids: Mapping[str, int], names: Iterable[str]) -> dict[str, Numbers]:
    layout = layout_of(config)
    allocated = allocate(numbered(config), ids, layout)
    base, priority = config.global_.table_base, config.global_.priority
    return {name: numbers(allocated[name], layout, table_base=base, priority=priority) for name in names}
