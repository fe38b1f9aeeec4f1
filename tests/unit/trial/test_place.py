"""The directory of a configuration: files keep owner, rights and links, and a record is read or refused in words."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from polywan.core.errors import PolywanError
from polywan.core.trial.deciding import Place as Holds
from polywan.core.trial.texts import digest_of
from polywan.trial import place as module
from polywan.trial.place import Place
from unit.core.trial.test_deciding import RECORD


@pytest.fixture
def place(tmp_path: Path) -> Place:
    file = tmp_path / "polywan.toml"
    file.write_text("old")
    file.chmod(0o640)
    return Place(file)


def test_a_written_file_keeps_its_rights(place: Place) -> None:
    place.write("polywan.toml", "new")
    assert (place.file.read_text(), place.file.stat().st_mode & 0o777) == ("new", 0o640)


def test_a_new_file_has_those_of_the_main_one(place: Place) -> None:
    place.write("conf.d/a.toml", "new")
    assert (place.file.parent / "conf.d/a.toml").stat().st_mode & 0o777 == 0o640
    assert place.texts() == {"polywan.toml": "old", "conf.d/a.toml": "new"}


def test_a_link_stays_one(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kept" / "real.toml"
    elsewhere.parent.mkdir()
    place.file.rename(elsewhere)
    place.file.symlink_to(elsewhere)
    place.write("polywan.toml", "new")
    assert place.file.is_symlink()
    assert elsewhere.read_text() == "new"


def test_it_tells_old_new_and_other_texts(place: Place) -> None:
    record = RECORD.__class__(**{**{n: getattr(RECORD, n) for n in RECORD.__slots__}, "old": digest_of("old")})
    assert place.holds(record) is Holds.OLD
    place.write("polywan.toml", "new")
    assert place.holds(record) is Holds.NEW
    place.write("polywan.toml", "mine")
    assert place.holds(record) is Holds.OTHER


def test_the_record_is_for_its_owner_alone(place: Place) -> None:
    assert place.pending() is None
    place.keep(RECORD)
    assert place.record.stat().st_mode & 0o777 == 0o600
    assert place.pending() == RECORD
    place.drop()
    assert place.pending() is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"version": 9}', "is of version 9, and this polywan")],
)
def test_a_record_that_is_none_is_refused_with_its_place(place: Place, text: str, why: str) -> None:
    place.record.write_text(text)
    with pytest.raises(PolywanError, match=why) as caught:
        place.pending()
    assert str(place.record) in str(caught.value)


def test_a_link_in_its_place_is_not_followed(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("{}")
    place.record.symlink_to(tmp_path / "other")
    with pytest.raises(PolywanError, match="symbolic link"):
        place.pending()


def test_a_second_command_waits_for_the_first_and_not_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_WITHIN", 0.0)
    refused = pytest.raises(PolywanError, match=r"another polywan command has worked on .*polywan\.toml")
    with place.held(), refused, place.held():
        pass
    with place.held():
        pass


def test_nobody_else_can_lock(place: Place) -> None:
    with place.held():
        lock = place.file.with_name(".polywan.toml.lock")
        assert lock.stat().st_mode & 0o777 == 0o600
        # Whoever may read the directory may lock it.
        descriptor = os.open(place.file.parent, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
