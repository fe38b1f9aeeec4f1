"""What crosses between the daemon's user and root: files and sockets, as SECURITY.md lists them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from polywan import files
from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.client import Client
from polywan.core.errors import BusyError, ControlError, PolywanError
from polywan.daemon.journal import JOURNAL_FILE, Journal, JournalError
from polywan.daemon.rundir import LOCK_FILE, locked
from polywan.files import SOCKET
from polywan.kernel.privilege import files_of

SECRET = "root:$6$secret\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of root's that the daemon's user would like to see emptied."""
    file = tmp_path / "precious"
    file.write_text(SECRET)
    return file


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    with TemporaryDirectory(prefix="polywan-border-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


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


@as_root
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


JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def hot_journal(names: Path) -> bytes:
    """Return a journal that SQLite plays back, and that names a file to be removed afterwards (a super-journal)."""
    size, name = 4096, str(names).encode()
    head = (JOURNAL_MAGIC + struct.pack(">5I", 0, 1, 2, 512, size)).ljust(512, b"\0")
    return (
        head
        + struct.pack(">I", (1 << 30) // size + 1)
        + name
        + struct.pack(">2I", len(name), sum(name))
        + JOURNAL_MAGIC
    )


@as_root
def test_the_journal_of_another_user_makes_root_remove_nothing(reachable: Path) -> None:
    state, roots = reachable / "state", reachable / "roots"
    roots.mkdir(mode=0o755)
    (roots / "precious").write_text(SECRET)
    state.mkdir()
    Journal(state).load()
    (state / f"{JOURNAL_FILE}-journal").write_bytes(hot_journal(roots / "precious"))
    for path in (state, *state.iterdir()):
        os.chown(path, 4242, 4242)
    # SQLite as that user may not remove it, so there is no journal until the file beside it is gone.
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(state).load()
    assert (roots / "precious").read_text() == SECRET


def test_sqlite_would_remove_what_such_a_journal_names(tmp_path: Path) -> None:
    """Otherwise the test above shows nothing."""
    (tmp_path / "precious").write_text(SECRET)
    Journal(tmp_path).load()
    (tmp_path / f"{JOURNAL_FILE}-journal").write_bytes(hot_journal(tmp_path / "precious"))
    Journal(tmp_path).load()
    assert not (tmp_path / "precious").exists()


@as_root
def test_root_leaves_a_journal_that_the_directorys_owner_can_go_on_with(reachable: Path) -> None:
    (reachable / JOURNAL_FILE).write_bytes(b"")
    os.chown(reachable, 4242, 4343)
    journal = Journal(reachable)
    journal.load()
    journal.close()
    found = (reachable / JOURNAL_FILE).stat()
    assert (found.st_uid, found.st_gid) == (4242, 4343)
    assert found.st_size > 0


@as_root
def test_root_acts_as_another_user_in_this_thread_and_for_a_while_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with ThreadPoolExecutor(1) as other:
        other.submit(os.getpid).result()
        with files_of(4242, 4343):
            with pytest.raises(PermissionError):
                os.listdir(tmp_path)
            assert other.submit(os.listdir, tmp_path).result() == []
    with pytest.raises(PermissionError, match="root cannot act as user 4294967295"), files_of(0xFFFF_FFFF, 0):
        pass
    assert os.listdir(tmp_path) == []


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
