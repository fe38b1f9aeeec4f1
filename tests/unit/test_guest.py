"""The guest for tests that need another kernel: found where it is said, and missed in one sentence."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "vm"


def find(place: Path, *words: str, directory: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Ask a copy of the script in a checkout of its own."""
    script = place / "checkout" / "scripts" / "vm"
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT, script)
    variables = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(place / "cache"), **more}
    argv = [sys.executable, "-I", str(script), *(words or ["--find"])]
    return subprocess.run(argv, cwd=directory, env=variables, capture_output=True, text=True, check=False)


def pack(place: Path, contents: bytes, version: str = "7") -> None:
    shared = place / "shared" / "vm"
    shared.mkdir(parents=True, exist_ok=True)
    with lzma.open(shared / f"linux-{version}.uml.xz", "wb") as packed:
        packed.write(contents)


def test_without_a_kernel_it_says_so(tmp_path: Path) -> None:
    done = find(tmp_path)
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == "polywan: there is no kernel for a guest; scripts/vm --help says where to put one\n"


def test_a_kernel_beside_the_checkout_is_unpacked_once(tmp_path: Path) -> None:
    pack(tmp_path, b"a kernel")
    cached = tmp_path / "cache" / "polywan" / "linux.uml"
    assert find(tmp_path).stdout == f"{cached}\n"
    assert cached.read_bytes() == b"a kernel"
    assert os.access(cached, os.X_OK)
    before = cached.stat().st_ino
    find(tmp_path)
    assert cached.stat().st_ino == before


def test_one_that_is_named_comes_first(tmp_path: Path) -> None:
    pack(tmp_path, b"a kernel")
    mine = tmp_path / "mine"
    mine.touch(0o755)
    assert find(tmp_path, POLYWAN_VM_KERNEL=str(mine)).stdout == f"{mine}\n"


def test_one_that_cannot_be_started_is_named_in_one_sentence(tmp_path: Path) -> None:
    for named in (tmp_path / "nowhere", tmp_path):
        done = find(tmp_path, POLYWAN_VM_KERNEL=str(named))
        assert (done.returncode, done.stdout) == (126, "")
        assert done.stderr == f"polywan: {named} is no program, so it is no kernel for a guest\n"


def test_one_that_is_torn_or_has_no_place_is_named_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    pack(tmp_path, b"a kernel" * 1000)
    (packed,) = (tmp_path / "shared" / "vm").iterdir()
    whole = packed.read_bytes()
    for contents in (whole[:-20], b"no xz"):
        packed.write_bytes(contents)
        done = find(tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (126, "", 1)
        assert done.stderr.startswith(f"polywan: {packed} cannot be unpacked to ")
        assert list((tmp_path / "cache" / "polywan").iterdir()) == []
    packed.write_bytes(whole)
    (tmp_path / "file").touch()
    done = find(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)


def test_a_directory_that_the_guest_has_not_is_no_place_to_start_in(tmp_path: Path) -> None:
    pack(tmp_path, b"a kernel")
    done = find(tmp_path, "true", directory=Path("/dev/shm"))
    assert done.returncode == 2
    assert "error: the guest has no /dev/shm: " in done.stderr


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pack(tmp_path, b"a kernel")
    done = find(tmp_path, "--rw", "/nowhere", "true")
    assert done.returncode == 2
    assert done.stderr.endswith("--rw /nowhere: no such directory\n")
