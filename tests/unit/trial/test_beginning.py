"""What may be tried, and with which daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polywan import presence
from polywan.core.errors import PolywanError
from polywan.trial import asking, begin
from polywan.trial.place import Place
from support.trials import TrialWorld

ONE = '[uplinks.u1]\ninterface = "wan1"\n'
TWO, PART = ONE + "weight = 2\n", "[uplinks.u1]\nweight = 3\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialWorld:
    monkeypatch.setattr(presence, "namespace", lambda: "net")
    return TrialWorld(tmp_path, ONE)


def test_a_file_that_the_configuration_has_already_is_no_new_text_of_the_main_one(world: TrialWorld) -> None:
    part = world.place.path("conf.d/a.toml")
    world.place.write("conf.d/a.toml", PART)
    world.daemon.in_force = world.daemon.confirmed = world.place.texts()
    client: Any = world.daemon
    with pytest.raises(PolywanError, match="is a part of the configuration already"):
        begin.change_of(world.place, client, part, PART)


def test_a_link_to_the_configuration_is_another_place(world: TrialWorld, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "polywan.toml").symlink_to(world.place.file)
    client: Any = world.daemon
    with pytest.raises(PolywanError, match="name it by --config"):
        asking.here(client, elsewhere / "polywan.toml")


def test_a_link_to_the_directory_is_the_same_place(world: TrialWorld, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    client: Any = world.daemon
    asking.here(client, tmp_path / "link" / "polywan.toml")


def test_a_beginning_that_the_disk_refuses_leaves_no_record(world: TrialWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.place.file.write_text(TWO)

    def full(place: Place, name: str, text: str) -> None:
        raise PolywanError("no space left on device")

    monkeypatch.setattr(Place, "write", full)
    with world.entered(), pytest.raises(PolywanError, match="no space"):
        world.attempt(None)
    assert world.place.pending() is None
    assert world.place.file.read_text() == TWO
