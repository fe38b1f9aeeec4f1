"""The pages of docs/design and the files that they govern."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (ROOT / "src", ROOT / "scripts")
SOURCES = [path.relative_to(ROOT).as_posix() for place in PLACES for path in sorted(place.rglob("*.py"))]
ROOMS = [path for place in PLACES for path in sorted(place.rglob("*")) if path.is_dir() and list(path.glob("*.py"))]
MOST = 15
"""Modules that a room may have. The verbs are a list rather than a room: one module for each."""


def named() -> list[tuple[str, str]]:
    """Page and path, for each file or folder that a page says it governs."""
    found = []
    for page in sorted((ROOT / "docs/design").glob("*.md")):
        said = re.search(r"^Governs: (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if said:
            found += [(page.stem, path) for path in re.findall(r"`((?:src|scripts)/[^`]+)`", said[1])]
    return found


def test_what_a_page_governs_is_there() -> None:
    assert [path for _, path in named() if not (ROOT / path).exists()] == []


def test_nothing_is_governed_by_two_pages() -> None:
    assert [path for path, pages in Counter(path for _, path in named()).items() if pages > 1] == []


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_file_is_governed_by_a_page(source: str) -> None:
    assert any(source == path or (path.endswith("/") and source.startswith(path)) for _, path in named())


@pytest.mark.parametrize("room", [r for r in ROOMS if r.name != "cli"], ids=lambda r: r.name)
def test_a_room_is_no_larger_than_one_can_look_over(room: Path) -> None:
    assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= MOST
