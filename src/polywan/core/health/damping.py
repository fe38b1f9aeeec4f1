"""Damp flapping: an uplink that is lost soon after each return is held down longer each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polywan.config import HealthSettings

CALM_HOLDS: Final = 10
"""Times `hold_down` for which an uplink must have been up for its loss to count as the first one again.

To last as long as it was held is not enough while that is short: a link that works for eleven seconds at a time would
never be held for more than ten.
"""


@dataclass(frozen=True, slots=True)
class Damping:
    """How often an uplink was lost in a row, each time soon after its return.

    Attributes:
        doubled: how often the hold-down was doubled since.
        losses: losses of the series; `first` is the time of the first one, monotonic seconds.
    """

    doubled: int = 0
    losses: int = 0
    first: float = 0.0


NO_LOSS: Final = Damping()
"""It was never lost."""


def hold_of(damping: Damping, settings: HealthSettings) -> float:
    """Return the hold-down in force, seconds."""
    return min(settings.hold_down * 2.0**damping.doubled, _longest(settings))


def after_loss(damping: Damping, settings: HealthSettings, lasted: float | None, now: float) -> Damping:
    """Count a loss.

    Args:
        damping: before it.
        settings: of the uplink.
        lasted: seconds since its return; None when it did not return before, but was up from the start.
        now: monotonic seconds.
    """
    hold = hold_of(damping, settings)
    if lasted is None or lasted >= max(hold, CALM_HOLDS * settings.hold_down):
        return Damping(losses=1, first=now)
    return Damping(damping.doubled + (0 < hold < _longest(settings)), damping.losses + 1, damping.first)


def described(damping: Damping, settings: HealthSettings, now: float) -> str:
    """Say for how long an uplink is held, and why so long."""
    text = f"hold-down of {spoken(hold_of(damping, settings))} after its first answer"
    if damping.losses < 2:
        return text
    return f"{text} (lost {damping.losses} times in {spoken(now - damping.first)})"


def spoken(seconds: float) -> str:
    """Write a time span in its natural unit: ``40 s``, ``5 min``, ``3 h``."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _longest(settings: HealthSettings) -> float:
    return max(settings.hold_down, settings.hold_down_max)
