"""What the lines answered when they were asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFacts:
    """What was found on the lines of a box."""
