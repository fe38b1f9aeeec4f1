"""User-mode Linux from Debian's source, into the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from guest import cache
from guest.debian import TOOLS as FETCHING
from guest.debian import Archive
from guest.errors import GuestError
from guest.kernels import Kernel
from guest.processes import require, run
from guest.running import run as start
from guest.share import Request

SUITE: Final = "trixie-backports"
"""Has a source in which user-mode Linux has several processors, and fast system calls by seccomp."""
SOURCE: Final = "linux-source-7.2"
"""The one that is known to work; once the suite has it no more, the one that META depends on."""
META: Final = "linux-source"
TOOLS: Final = {
    "make": "make", "gcc": "gcc", "ld": "binutils", "strip": "binutils", "flex": "flex", "bison": "bison",
    "bc": "bc", "perl": "perl", "tar": "tar", "xz": "xz-utils",
}  # fmt: skip
SPACE: Final = 3000
"""Megabytes of source, package and object files."""
FILES: Final = 1300
"""That are compiled, about."""
PACE: Final = 30.0
"""Seconds between two lines about that."""


def build(say: Callable[[str], None]) -> None:
    """Build a kernel from `kernel.config` and put it into the cache, once a guest has started on it.

    Args:
        say: reports progress.

    Raises:
        GuestError: a program is missing, the source cannot be fetched, does not compile or lacks a setting, or no guest
            starts on what comes of it.
    """
    require(TOOLS | FETCHING, "building a kernel")
    require_headers()
    config = cache.CONFIG.read_text()
    with cache.workshop(SPACE) as work:
        say("[1/4] fetching Debian's kernel source, about 165 MB")
        tree = unpack_source(work, say)
        say("[2/4] configuring")
        configure(tree, config)
        say("[3/4] compiling, which takes some 6 minutes on two processors")
        compile_all(tree, say)
        program = work / "linux.uml"
        run(["strip", "-o", program, tree / "vmlinux"])
        say("[4/4] starting a guest on it")
        check(program)
        program.replace(cache.built())


def require_headers() -> None:
    """Refuse to begin without the C library's headers: user-mode Linux is a program like any other.

    Raises:
        GuestError: they are absent.
    """
    try:
        run(["gcc", "-fsyntax-only", "-include", "stdio.h", "-x", "c", "/dev/null"])
    except GuestError:
        raise GuestError("building a kernel needs the C library's headers; run: apt-get install libc6-dev") from None


def unpack_source(work: Path, say: Callable[[str], None]) -> Path:
    """Fetch and unpack the source; return its directory."""
    archive = Archive(work / "apt", SUITE)
    package = SOURCE if archive.has(SOURCE) else newest(archive.needed(META))
    say(f"      {package} {archive.unpack(package, work / 'package')}")
    (packed,) = (work / "package" / "usr" / "src").glob("linux-source-*.tar.*")
    tree = work / "tree"
    tree.mkdir()
    run(["tar", "--extract", "--file", packed, "--directory", tree, "--strip-components=1"])
    packed.unlink()
    return tree


def newest(needed: Iterable[str]) -> str:
    """Return the package with the source among those that META depends on.

    Raises:
        GuestError: there is none.
    """
    for package in needed:
        if package.startswith("linux-source-"):
            return package
    raise GuestError(f"{SUITE} has no package with the kernel's source")


def configure(tree: Path, config: str) -> None:
    """Write the configuration of the kernel.

    Raises:
        GuestError: this source does not take a setting.
    """
    make(tree, "defconfig")
    with (tree / ".config").open("a") as file:
        # The last line about a setting counts.
        file.write("\n".join([*cache.settings(config), ""]))
    make(tree, "olddefconfig")
    if refused := differing(cache.settings(config), (tree / ".config").read_text()):
        raise GuestError(f"this kernel's source does not take {', '.join(refused)} of {cache.CONFIG}")


def differing(wanted: Iterable[str], written: str) -> list[str]:
    """Return the settings that a configuration does not have. One that is not in it is "n"."""
    values = dict(line.split("=", 1) for line in cache.settings(written))
    return [line for line in wanted if values.get(line.partition("=")[0], "n") != line.partition("=")[2]]


def make(tree: Path, target: str, on_line: Callable[[str], None] = lambda _: None) -> None:
    """Run the kernel's make."""
    # A developer's own flags are for other programs.
    variables = {"MAKEFLAGS": "", "CFLAGS": "", "LDFLAGS": ""}
    jobs = len(os.sched_getaffinity(0))
    run(["make", "ARCH=um", f"--jobs={jobs}", target], cwd=tree, variables=variables, on_line=on_line)


def compile_all(tree: Path, say: Callable[[str], None]) -> None:
    """Compile the kernel, with a line about it now and then."""
    began = spoke = time.monotonic()
    files = 0

    def count(line: str) -> None:
        nonlocal files, spoke
        files += line.startswith("  CC ")
        now = time.monotonic()
        if now - spoke >= PACE:
            spoke = now
            minutes, seconds = divmod(int(now - began), 60)
            say(f"      {minutes} min {seconds:02} s: {files} of some {FILES} files")

    make(tree, "vmlinux", count)


def check(program: Path) -> None:
    """Start a guest on a kernel.

    Raises:
        GuestError: it does not start.
    """
    request = Request(command=("true",), directory=Path("/"), writable=(), cpus=1, mem=500, seconds=60)
    if status := start(Kernel("uml", program, ""), request):
        raise GuestError(f"no guest starts on the kernel that was built (exit status {status}), so it is not kept")
