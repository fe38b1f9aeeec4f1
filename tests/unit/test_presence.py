"""Who runs in this network namespace, as the kernel tells."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from polywan import presence
from polywan.presence import Presence, found

HEAD = "Num       RefCount Protocol Flags    Type St Inode Path\n"


def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names_in_use: str) -> None:
    file = tmp_path / "unix"
    file.write_text(
        HEAD + "".join(f"0000000000000000: 00000002 00000000 00000000 0002 01 1234 {t}\n" for t in names_in_use)
    )
    monkeypatch.setattr(presence, "_NAMES", file)


def test_nobody_is_found_where_nobody_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(tmp_path, monkeypatch, "/run/dbus/system_bus_socket", "@/tmp/.X11-unix/X0")
    assert found() is None


def test_a_daemon_is_found_with_its_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No process has this number, as one of another pid namespace.
    names(tmp_path, monkeypatch, "@polywan", "@polywan:9999999:/run/my polywan")
    assert found() == Presence(9999999, Path("/run/my polywan"))


def test_oneself_is_not_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(tmp_path, monkeypatch, f"@polywan:{os.getpid()}:/run/polywan")
    assert found() is None


def test_a_program_that_cannot_change_networking_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        names(tmp_path, monkeypatch, f"@polywan:{sleeper.pid}:/run/polywan")
        status = Path(f"/proc/{sleeper.pid}/status").read_text()
        rights = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
        assert (found() is not None) is bool(rights >> 12 & 1)
        sleeper.kill()


@pytest.mark.parametrize(("owner", "believed"), [(0, True), (None, True), (4242, False)])
@pytest.mark.parametrize("pid", [1, 9999999])
def test_a_name_is_believed_by_whose_it_is_and_not_by_the_process_that_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int, owner: int | None, believed: bool
) -> None:
    names(tmp_path, monkeypatch, f"@polywan:{pid}:/run/polywan")
    monkeypatch.setattr(presence, "_owner", lambda _: owner)
    status = Path(f"/proc/{pid}/status")
    able = not status.exists() or "CapEff:\t0000000000000000" not in status.read_text()
    assert (found() is not None) is (believed and able)


def test_the_kernel_tells_whose_a_socket_is() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mine:
        assert presence._owner(os.fstat(mine.fileno()).st_ino) in (os.geteuid(), None)
    assert presence._owner(4294967295) is None
