"""Read text files that anybody may have written, or put something else in the place of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from polywan.files import content

LONGEST: Final = 1 << 18
"""Bytes of a file that are read."""


def text(path: Path, most: int = LONGEST) -> str:
    """Return the beginning of a file; nothing of what is no plain text file, or cannot be read."""
    try:
        data = content(path, most)
    except OSError:
        return ""
    return "" if b"\0" in data else data.decode("utf-8", "replace")
