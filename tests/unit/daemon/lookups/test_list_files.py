"""A file of prefixes over time: when it is read, what is refused, and which contents count meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from polywan.config.loading import prefix_file
from polywan.daemon.lookups.machine import ListState, look_at
from support.files import write

LATER = 1e10
"""A time at which every file has been left alone for long."""


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    before = look_at(path, ListState(), LATER)
    monkeypatch.setattr(prefix_file, "read", None)
    assert look_at(path, before, LATER) == before


def test_new_contents_take_the_place_of_old_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    before = look_at(path, ListState(), LATER)
    write(tmp_path / "list", "11.0.0.0/8\n")
    after = look_at(path, before, LATER)
    assert after.good is not None
    assert after.good.v4 == ("11.0.0.0/8",)


def test_the_same_contents_are_the_same_object(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    before = look_at(path, ListState(), LATER)
    write(tmp_path / "list", "# touched\n10.0.0.0/8\n")
    assert look_at(path, before, LATER).good is before.good


def test_a_bad_line_keeps_the_old_contents_and_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    before = look_at(path, ListState(), LATER)
    write(tmp_path / "list", "11.0.0.0/8\n10.0.0.1/8\nx\ny\n")
    after = look_at(path, before, LATER)
    assert after.good is before.good
    assert after.problem.startswith(f'{path}:2: "10.0.0.1/8" has host bits set (the network is 10.0.0.0/8); and 2 ')


def test_a_file_that_is_being_written_waits_while_good_contents_are_in_force(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    before = look_at(path, ListState(), LATER)
    write(tmp_path / "list", "")
    touched = prefix_file.stamp(Path(path)).touched / 1e9
    waiting = look_at(path, before, touched + 0.1)
    assert waiting.busy
    assert waiting.good is before.good
    settled = look_at(path, waiting, touched + 0.3)
    assert not settled.busy
    assert settled.good is not None
    assert settled.good.v4 == ()


def test_a_young_file_is_read_at_once_when_there_is_nothing_else_and_once_more_later(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    touched = prefix_file.stamp(Path(path)).touched / 1e9
    first = look_at(path, ListState(), touched + 0.01)
    assert first.good is not None
    assert first.busy
    assert look_at(path, first, touched + 1).stamp is not None


def test_a_file_that_is_not_there_is_a_problem_until_it_comes(tmp_path: Path) -> None:
    path = str(tmp_path / "folder" / "list")
    missing = look_at(path, ListState(), LATER)
    assert missing.problem == f"{path}: cannot be read: no such file or directory"
    (tmp_path / "folder").mkdir()
    write(Path(path), "10.0.0.0/8\n")
    assert look_at(path, missing, LATER).problem == ""


def test_a_file_that_is_gone_leaves_its_contents_in_force(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    before = look_at(path, ListState(), LATER)
    Path(path).unlink()
    after = look_at(path, before, LATER)
    assert after.good is before.good
    assert after.problem


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.touch()
    os.truncate(path, 100_000_000_000)
    assert look_at(str(path), ListState(), LATER).problem == f"{path}: is 100000 MB; a list may have 16 MiB"


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", Path("/dev/zero")):
        assert look_at(str(name), ListState(), LATER).problem == f"{name}: is not a regular file"
    assert look_at(str(tmp_path), ListState(), LATER).problem == f"{tmp_path}: cannot be read: is a directory"


def test_refusing_a_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        look_at(str(name), ListState(), LATER)
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"10.0.0.0/8\n\xff\xfe\n")
    assert "line 2: is not UTF-8 text" in look_at(str(tmp_path / "list"), ListState(), LATER).problem


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list"
    write(path, "10.0.0.0/8\n")
    real, changes = os.fstat, iter(["11.0.0.0/8\n"])

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        for text in changes:
            write(path, text)
        return status

    monkeypatch.setattr(prefix_file, "os", SimpleNamespace(**{**vars(os), "fstat": fstat}))
    assert prefix_file.read(path)[1] == "11.0.0.0/8\n"
