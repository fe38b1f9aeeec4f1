"""What can go wrong before a guest has started."""

from __future__ import annotations


class GuestError(Exception):
    """There is no guest, or no kernel can be made for one: why, and what to do, in one sentence."""
