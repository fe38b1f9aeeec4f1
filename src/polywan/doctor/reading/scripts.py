"""Read the files by which administrators and programs set up networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def read(root: Path) -> Mapping[str, str]:  # noqa: ARG001
    """Return their texts by path, as seen from the root."""
    return {}
