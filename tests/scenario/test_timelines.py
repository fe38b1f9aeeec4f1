"""Each .txt file here is a timeline (the language is described in tests/support/timeline.py)."""

from pathlib import Path

import pytest

from support.timeline import play

TIMELINES = sorted(Path(__file__).parent.glob("*.txt"))


def test_there_are_timelines() -> None:
    assert TIMELINES


@pytest.mark.parametrize("path", TIMELINES, ids=lambda p: p.stem)
def test_the_timeline_happens_as_written(path: Path) -> None:
    play(path)
