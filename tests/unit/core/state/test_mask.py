"""The mask of an installation stays until `down`, whatever the default of a later version is."""

from __future__ import annotations

from pathlib import Path

from polywan.config import Config
from polywan.core.state.mask import BEFORE, settled
from polywan.core.state.memory import Memory
from polywan.daemon import store
from support.engine_world import Engine, world

UPLINKS = {"uplinks": {"u1": {"interface": "wan1"}, "u2": {"interface": "wan2"}}}
DEFAULT = 0x3F00_0000


def configured(**settings: int) -> Config:
    return Config.model_validate({**UPLINKS, **({"global": settings} if settings else {})})


def test_a_new_installation_takes_the_default() -> None:
    assert settled(configured(), Memory()).global_.mark_mask == DEFAULT


def test_an_older_version_that_has_given_out_marks_used_its_own_default() -> None:
    assert settled(configured(), Memory(ids={"u1": 1})).global_.mark_mask == BEFORE


def test_what_is_remembered_stays_and_the_file_comes_first() -> None:
    memory = Memory(ids={"u1": 1}, mask=0xFF00)
    assert settled(configured(), memory).global_.mark_mask == 0xFF00
    assert settled(configured(mark_mask=0x3F_0000), memory).global_.mark_mask == 0x3F_0000


def test_the_mask_in_force_is_remembered_on_disk(tmp_path: Path) -> None:
    daemon = Engine(configured(), world(2))
    store.save(tmp_path, daemon.state.known.memory)
    assert store.load(tmp_path)[0].mask == DEFAULT


def test_a_mask_that_no_mark_has_is_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text('{"ids": {}, "gateways": [], "originals": {}, "mask": 4294967296}')
    assert store.load(tmp_path)[0] == Memory()
