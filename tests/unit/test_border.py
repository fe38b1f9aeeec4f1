"""What crosses between the daemon's user and root: each file and socket that SECURITY.md lists under that name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from polywan import files
from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.client import Client
from polywan.core.errors import BusyError, ControlError, PolywanError
from polywan.daemon.rundir import LOCK_FILE, locked
from polywan.files import SOCKET

SECRET = "root:$6$secret\n"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of root's that the daemon's user would like to see emptied."""
    file = tmp_path / "precious"
    file.write_text(SECRET)
    return file


def held(directory: Path) -> str:
    with pytest.raises(PolywanError) as caught, locked(directory):
        pass
    assert not isinstance(caught.value, BusyError)
    return str(caught.value)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_not_touched(run: Path, precious: Path) -> None:
    (run / LOCK_FILE).symlink_to(precious)
    assert held(run) == f"{run / LOCK_FILE} is a symbolic link: not created by polywan; remove it"
    assert precious.read_text() == SECRET


def test_a_lock_that_leads_to_nothing_makes_nothing(run: Path, tmp_path: Path) -> None:
    (run / LOCK_FILE).symlink_to(tmp_path / "new")
    held(run)
    assert not (tmp_path / "new").exists()


def test_a_lock_that_is_a_second_name_is_refused_and_not_touched(run: Path, precious: Path) -> None:
    os.link(precious, run / LOCK_FILE)
    assert "has more than one hard link" in held(run)
    assert precious.read_text() == SECRET


def test_a_lock_that_is_no_file_is_refused_without_waiting(run: Path) -> None:
    os.mkfifo(run / LOCK_FILE)
    assert "is not a regular file" in held(run)


def test_a_lock_that_is_a_folder_is_refused(run: Path) -> None:
    (run / LOCK_FILE).mkdir()
    assert "cannot use the runtime directory" in held(run)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_lock_of_another_user_than_its_directory_is_refused_and_not_touched(run: Path) -> None:
    (run / LOCK_FILE).write_text(SECRET)
    os.chown(run / LOCK_FILE, 4242, 4242)
    assert "belongs to another user" in held(run)
    assert (run / LOCK_FILE).read_text() == SECRET
    os.chown(run, 4242, 4242)
    with locked(run):
        assert (run / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_a_lock_that_is_replaced_all_the_time_keeps_nobody_busy(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polywan.daemon.rundir._is", lambda *_: False)
    with pytest.raises(PolywanError, match="keeps replacing lock in it"), locked(run):
        pass


def test_a_lock_is_held_once_and_is_not_inherited(run: Path) -> None:
    with locked(run), pytest.raises(BusyError, match=rf"pid {os.getpid()}\)"), locked(run):
        pass
    descriptor = files.open_own(run, LOCK_FILE)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_directory_that_was_removed_is_held_again_and_by_one_only(run: Path) -> None:
    with locked(run) as first:
        (run / LOCK_FILE).unlink()
        run.rmdir()
        first.again()
        with pytest.raises(BusyError), locked(run):
            pass
        (run / LOCK_FILE).unlink()
        with locked(run), pytest.raises(BusyError):
            first.again()
        first.again()


def test_holding_again_what_is_held_changes_nothing(run: Path) -> None:
    with locked(run) as held:
        before, open_files = (run / LOCK_FILE).stat(), len(os.listdir("/proc/self/fd"))
        held.again()
        assert os.path.samestat(before, (run / LOCK_FILE).stat())
        assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_client_is_not_led_to_the_socket_of_another_program(run: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        other.setblocking(False)
        (run / SOCKET).symlink_to(tmp_path / "other.sock")
        with pytest.raises(ControlError, match="is not a socket"):
            Client(run).ask(calls.DOWN, Nothing())
        (run / SOCKET).unlink()
        os.link(tmp_path / "other.sock", run / SOCKET)
        with pytest.raises(ControlError, match="has more than one hard link"):
            Client(run).ask(calls.DOWN, Nothing())
        with pytest.raises(BlockingIOError):
            other.accept()


def test_binding_the_socket_replaces_a_link_and_not_what_it_leads_to(run: Path, precious: Path) -> None:
    from polywan.daemon.api.http import bind

    (run / SOCKET).symlink_to(precious)
    bind(run).close()
    assert precious.read_text() == SECRET
    assert (run / SOCKET).is_socket()


def test_the_temporary_file_of_the_memory_follows_no_link(tmp_path: Path, precious: Path) -> None:
    from polywan.daemon import store
    from support.memories import MEMORY

    state = tmp_path / "state"
    state.mkdir()
    (state / store.FILE).symlink_to(precious)
    store.save(state, MEMORY)
    assert precious.read_text() == SECRET
    assert store.load(state) == (MEMORY, "")
    (state / store.FILE).unlink()
    (state / store.FILE).symlink_to(precious)
    store.forget(state)
    assert precious.exists()
    assert not (state / store.FILE).is_symlink()


def test_opening_is_refused_without_leaving_a_descriptor(run: Path, precious: Path) -> None:
    (run / "link").symlink_to(precious)
    os.mkfifo(run / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "pipe", "absent"):
        with pytest.raises(OSError):  # noqa: PT011 - any of them
            files.open_own(run, name)
        with pytest.raises(OSError):  # noqa: PT011 - any of them
            files.own_socket(run / name)
    for name in ("pipe", "absent", "."):
        with pytest.raises(OSError):  # noqa: PT011 - any of them
            files.open_regular(run / name)
    assert len(os.listdir("/proc/self/fd")) == before
