"""Files of prefixes for tests."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, text: str) -> str:
    """Replace a file the way editors do, by another of the same name; return the name."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)
    return str(path)
