"""`scripts/vm --build`: what it needs is named at once, what it leaves is one kernel that starts, or nothing."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from guest.build import SPACE
from guest.cache import digest

from support.guest import HIDEABLE, Checkout

ROOM = shutil.disk_usage("/var/tmp").free // 1_000_000 > SPACE

KERNEL = """#!/bin/sh
for word; do
    case $word in init=*) init=${word#init=} ;; esac
done
echo STATUS > "${init%/init}/status"
"""
"""Stands for user-mode Linux: it ends at once, as if the command had."""


@pytest.fixture
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with programs that pretend to fetch and to build a kernel."""
    if not ROOM:
        pytest.skip(f"a build asks for {SPACE} MB of room")
    checkout = Checkout.at(tmp_path_factory.mktemp("build"))
    for name in ("ld", "flex", "bison", "bc", "perl", "xz", "gcc"):
        checkout.tool(name)
    checkout.tool("apt-config", 'echo "Acquire::Retries \\"0\\";"')
    checkout.tool(
        "apt-get",
        """case $* in
*--print-uris) echo "'http://mirror.invalid/debian/dists/$VERSION_CODENAME/InRelease' lists 0" ;;
download*) touch source.deb ;;
esac""".replace("$VERSION_CODENAME", release()),
    )
    checkout.tool("apt-cache", 'echo "linux-source-7.2 - the source"')
    checkout.tool(
        "dpkg-deb",
        """case $1 in
--field) echo 7.2.99-1 ;;
--extract) mkdir -p "$3/usr/src/x"; touch "$3/usr/src/x/Makefile"; cd "$3/usr/src"; tar -cf linux-source-7.2.tar.xz x ;;
esac""",
    )
    kernel = checkout.place / "kernel"
    kernel.write_text(KERNEL.replace("STATUS", "0"))
    kernel.chmod(0o755)
    checkout.tool("make", f'case $* in *vmlinux) echo "  CC      init/main.o"; cp {kernel} vmlinux ;; esac')
    checkout.tool("strip", 'cp "$3" "$2"')
    return checkout


def release() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def kept(checkout: Checkout) -> list[str]:
    return sorted(path.name for path in checkout.cache.iterdir())


def name(checkout: Checkout) -> str:
    return f"linux-{digest(checkout.config.read_text())}.uml"


def test_a_build_leaves_the_kernel_that_is_found_from_then_on(checkout: Checkout) -> None:
    done = checkout.run("--build")
    assert (done.returncode, done.stdout) == (0, f"{checkout.cache / name(checkout)}\n"), done.stderr
    assert [line[9:14] for line in done.stderr.splitlines() if "/4]" in line] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert "polywan:       linux-source-7.2 7.2.99-1\n" in done.stderr
    assert kept(checkout) == [name(checkout)]
    assert checkout.find().stdout == done.stdout


@pytest.mark.skipif(not HIDEABLE, reason="all programs are in /usr/sbin")
def test_all_tools_that_are_missing_are_named_at_once_with_their_packages(checkout: Checkout, tmp_path: Path) -> None:
    for tool in ("python3", "ld", "gcc"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    done = checkout.run("--build", PATH=str(tmp_path))
    assert done.returncode == 126
    assert done.stderr.startswith("polywan: building a kernel needs make, strip, flex, bison, bc, ")
    assert done.stderr.endswith("; run: apt-get install apt bc binutils bison dpkg flex make perl tar xz-utils\n")


def test_missing_headers_are_named_with_their_package(checkout: Checkout) -> None:
    checkout.tool("gcc", "exit 1")
    done = checkout.run("--build")
    assert done.stderr == ("polywan: building a kernel needs the C library's headers; run: apt-get install libc6-dev\n")


def test_a_build_that_fails_shows_the_end_of_its_output_and_leaves_nothing(checkout: Checkout) -> None:
    checkout.tool("make", "case $* in *vmlinux) seq 100; exit 2 ;; esac")
    done = checkout.run("--build")
    assert done.returncode == 126
    assert "vmlinux` failed with exit status 2:\n81\n82\n" in done.stderr
    assert kept(checkout) == []


def test_a_setting_that_the_source_does_not_take_is_named(checkout: Checkout) -> None:
    with checkout.config.open("a") as file:
        file.write("CONFIG_TELEPORT=y\n")
    checkout.tool("make", "case $* in *olddefconfig) sed -i /TELEPORT/d .config ;; esac")
    done = checkout.run("--build")
    assert f"this kernel's source does not take CONFIG_TELEPORT=y of {checkout.config}\n" in done.stderr
    assert kept(checkout) == []


def test_a_kernel_on_which_no_guest_starts_is_not_kept(checkout: Checkout) -> None:
    (checkout.place / "kernel").write_text(KERNEL.replace("STATUS", "9"))
    done = checkout.run("--build")
    assert done.returncode == 126
    assert done.stderr.endswith("(exit status 9), so it is not kept\n")
    assert kept(checkout) == []


def test_without_a_mirror_of_debian_it_says_so(checkout: Checkout) -> None:
    checkout.tool("apt-get", "echo \"'http://mirror.invalid/other/dists/elsewhere/InRelease' lists 0\"")
    done = checkout.run("--build")
    assert done.stderr.endswith("polywan: apt has no Debian mirror among its sources\n")


def test_the_newest_source_is_taken_once_the_known_one_is_gone(checkout: Checkout) -> None:
    checkout.tool("apt-cache", 'case $1 in depends) echo "linux-source"; echo "  Depends: linux-source-8.0" ;; esac')
    assert "polywan:       linux-source-8.0 7.2.99-1\n" in checkout.run("--build").stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_build_with_all_its_programs_and_files(
    checkout: Checkout, number: signal.Signals, status: int
) -> None:
    note = checkout.place / "pid"
    checkout.tool("make", f"case $* in *vmlinux) echo $$ > {note}.new; mv {note}.new {note}; exec sleep 60 ;; esac")
    build = subprocess.Popen(checkout.argv("--build"), env=checkout.variables(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    build.send_signal(number)
    assert build.wait(30) == status
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert kept(checkout) == []


def test_one_build_at_a_time_and_what_a_killed_one_left_is_removed(checkout: Checkout) -> None:
    (checkout.cache / "build-killed" / "tree").mkdir(parents=True)
    lock = os.open(checkout.cache, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = checkout.run("--build")
    assert done.stderr == f"polywan: another process is building in {checkout.cache}; wait for it\n"
    os.close(lock)
    assert checkout.run("--build").returncode == 0
    assert kept(checkout) == [name(checkout)]
