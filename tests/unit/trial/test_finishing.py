"""The ends of a trial, and the way back to a configuration of the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polywan import presence
from polywan.core.errors import PolywanError
from polywan.trial import finishing
from polywan.trial.finishing import Past
from polywan.trial.place import Place
from support.trials import TrialWorld

ONE = '[uplinks.u1]\ninterface = "wan1"\n'
PART = "[uplinks.u1]\nweight = 3\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialWorld:
    made = TrialWorld(tmp_path, ONE)
    monkeypatch.setattr(presence, "namespace", lambda: "net")
    monkeypatch.setattr(finishing, "Client", lambda *_: made.daemon)
    made.place.write("polywan.toml", ONE + "weight = 2\n")
    made.place.write("conf.d/a.toml", PART)
    return made


def test_a_file_that_was_edited_after_the_difference_was_shown_stays(world: TrialWorld, tmp_path: Path) -> None:
    past = Past(tmp_path, world.place.file, 1)
    world.place.file.write_text("# by somebody else\n")
    with pytest.raises(PolywanError, match=r"changed since the difference was shown: .*/polywan\.toml;"):
        past.put_back(force=False)
    assert world.place.file.read_text() == "# by somebody else\n"


def test_a_disk_that_is_full_halfway_leaves_all_files_as_they_were(
    world: TrialWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past: Any = Past(tmp_path, world.place.file, 1)
    before = world.place.texts()

    def full(place: Place, name: str) -> None:
        raise PolywanError("no space left on device")

    monkeypatch.setattr(Place, "remove", full)
    with pytest.raises(PolywanError, match="no space"):
        past.put_back(force=False)
    assert world.place.texts() == before
