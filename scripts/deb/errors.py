"""What may go wrong."""

from __future__ import annotations


class BuildError(Exception):
    """The package cannot be built; the text says why, and what would help."""
