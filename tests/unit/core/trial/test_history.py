"""The history of configurations: ten, newest first, and no more text than there is room for."""

from __future__ import annotations

import json

import pytest

from polywan.core.trial.history import MOST_KEPT, TEXT_KEPT, Entry, added, restored, shown, stored
from polywan.core.trial.texts import digest_of_all


def entry(text: str, time: float = 0.0) -> Entry:
    files = {"polywan.toml": text}
    return Entry(time=time, user="alice", how="reload", changes=("x",), digest=digest_of_all(files), files=files)


def test_ten_are_kept_newest_first() -> None:
    found: tuple[Entry, ...] = ()
    for number in range(MOST_KEPT + 3):
        found = added(found, entry(f"# {number}", number))
    assert [one.time for one in found] == [*range(MOST_KEPT + 2, 2, -1)]
    assert [one.number for one in shown(found)] == [*range(MOST_KEPT)]


def test_the_same_again_adds_nothing() -> None:
    once = added((), entry("a", 1.0))
    assert added(once, entry("a", 2.0)) == once


def test_the_oldest_texts_go_when_there_is_no_room() -> None:
    large = "x" * (TEXT_KEPT // 2 - 10)
    found = added(added(added((), entry("1" + large)), entry("2" + large)), entry("3" + large))
    assert [one.kept for one in shown(found)] == [True, True, False]


def test_a_text_that_is_too_large_takes_no_room_from_others() -> None:
    found = added(added((), entry("a", 1.0)), entry("x" * (TEXT_KEPT + 1), 2.0))
    assert [one.kept for one in shown(found)] == [False, True]


def test_what_is_stored_is_restored() -> None:
    found = added(added((), entry("a", 1.0)), entry("x" * (TEXT_KEPT + 1), 2.0))
    assert restored(json.loads(json.dumps(stored(found)))) == found


@pytest.mark.parametrize(
    "change", [{"time": "now"}, {"time": -1}, {"how": "magic"}, {"files": {"a": 1}}, {"files": {}}, {"changes": [1]}]
)
def test_what_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    value = stored((entry("a"),))
    value["entries"][0] |= change
    with pytest.raises(ValueError, match=r"files: expected texts|an entry has no"):
        restored(value)
