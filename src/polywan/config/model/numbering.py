"""Who needs a mark, a routing table and policy rules of its own: uplinks, and some policies. Counted here alone.

`config/loading/check_parts.py` refuses what there are no numbers for, `core/marks.py` gives them out: both ask the same
functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2s
from typing import Final, Literal

from polywan.config.model.policy import Policy
from polywan.config.model.steering_rule import SteeringRule

DIRECT: Final = "uplink_"
"""Prefix of the policies made for rules that name an uplink: prefer it, else what the default policy offers."""

ONLY: Final = "only_"
"""Prefix of the policies made for rules with `only`: a digest of the uplinks, then the policy that is limited."""

MARKED: Final = frozenset({"multipath", "per-packet"})
"""Algorithms whose connections carry a mark of the policy until, or as long as, no uplink is theirs."""

MOST_NUMBERS: Final = 254
"""Numbers that the blocks of policy rules have room for (`core/marks.py`), however wide the mask is."""

_DEFAULT: Final = "default"


def capacity(mask: int) -> int:
    """Return how many numbers there are with this mark mask: 0 and the highest value are never given out."""
    return min((1 << mask.bit_count()) - 2, MOST_NUMBERS)


def widened(mask: int, wanted: int) -> int:
    """Return the mask with bits added until there is room: below it first, since 0x4000 and 0x8000 are kube-proxy's."""
    lowest = (mask & -mask).bit_length() - 1
    for bit in [*range(lowest - 1, -1, -1), *range(lowest + 1, 32)]:
        if capacity(mask) >= wanted:
            break
        mask |= 1 << bit
    return mask


def policy_name(rule: SteeringRule) -> str:
    """Return the name of the policy that a rule without an action sends its connections to."""
    base = rule.policy or (DIRECT + rule.uplink if rule.uplink is not None else "")
    if not rule.only:
        return base
    digest = blake2s(" ".join(rule.only).encode(), digest_size=4).hexdigest()
    return f"{ONLY}{digest}_{base}" if base else f"{ONLY}{digest}"


def marked(
    policies: Mapping[str, Policy | None], rules: Iterable[SteeringRule | None]
) -> Iterator[tuple[str, tuple[Literal["policies", "rules"], str | int]]]:
    """Yield the policies that need a number of their own: name, and where the file asks for it; each once.

    Args:
        policies: those that are written; None is one that could not be read, and counts for nothing.
        rules: all, in the order of the file, likewise.
    """
    names = [name for name, policy in policies.items() if policy and policy.algorithm in MARKED]
    for name in sorted(names, key=lambda name: name != _DEFAULT):
        yield name, ("policies", name)
    seen = set(names)
    for place, rule in enumerate(rules):
        if rule is None or rule.action is not None:
            continue
        base = rule.policy or (_DEFAULT if rule.uplink is not None else "")
        name = policy_name(rule)
        if base in names and name not in seen:
            seen.add(name)
            yield name, ("rules", place)
