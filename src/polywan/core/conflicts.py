"""Find policy rules and settings of others that are in our way, and say what to change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from polywan.config import Config
from polywan.core.allocate import FALLBACK, PAST
from polywan.core.foreign import ForeignRule
from polywan.core.plan import ActualState
from polywan.core.tuning import EVENTS

BAND = PAST
"""Width of the priority band that polywan uses, counted from `global.priority`."""

MASKS = (0x3F00, 0xFF00, 0x3F_0000, 0x3F00_0000, 0x3F)
"""Mark masks to propose, in this order; Kubernetes, Tailscale and Calico take bits 14 to 19 and 16 to 31."""


def conflicts(config: Config, actual: ActualState, rules: Iterable[ForeignRule]) -> Iterator[str]:
    """Yield one sentence per conflict with a rule or a setting of somebody else."""
    if actual.sysctls.get(EVENTS) == "0" and any(config.health_of(name).passive for name in config.uplinks):
        yield (
            f"{EVENTS.replace('/', '.')} is 0: silence under load is noticed by probes alone, and idle connections of "
            "a device that goes down are not freed; set it to 1 or 2"
        )
    low = config.global_.priority
    mask = config.global_.mark_mask
    rules = tuple(rules)
    for rule in rules:
        if low <= rule.priority <= low + BAND or rule.priority == FALLBACK:
            yield (
                f"another program's policy rule stands among ours: {rule.text()}; "
                f"set global.priority to a free band of {BAND + 1} (ours begins at {low})"
            )
        if rule.mark is not None and rule.mark[1] != 0xFFFF_FFFF and rule.mark[1] & mask:
            free = _free_mask(rules)
            advice = f"set global.mark_mask = {free:#x}" if free else "no usual mask is free: choose one by hand"
            yield f"another program uses mark bits of ours ({mask:#x}): {rule.text()}; {advice}"


def _free_mask(rules: Iterable[ForeignRule]) -> int | None:
    taken = 0
    for rule in rules:
        if rule.mark is not None and rule.mark[1] != 0xFFFF_FFFF:
            taken |= rule.mark[1]
    return next((m for m in MASKS if not m & taken), None)
