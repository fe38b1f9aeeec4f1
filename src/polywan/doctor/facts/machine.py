"""What files, units, tools and the clock of a box say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What was found on a box beside its network."""
