"""Debian's kernel for QEMU: fetched, and unpacked into the cache."""

from __future__ import annotations

import lzma
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from guest import cache
from guest.debian import TOOLS as FETCHING
from guest.debian import Archive
from guest.errors import GuestError
from guest.processes import require, run

QEMU: Final = "qemu-system-x86_64"
TOOLS: Final = {QEMU: "qemu-system-x86", "depmod": "kmod"}
META: Final = "linux-image-amd64"
"""Depends on the release's kernel. The one for clouds has neither PPP nor 9p."""
PARTS: Final = ("linux-image-", "linux-modules-")
"""How packages begin that a kernel is made of; newer releases have its modules in a package of their own."""
BUSYBOX: Final = "busybox-static"
XZ: Final = b"\xfd7zXZ\0"
ELF: Final = b"\x7fELF"
SPACE: Final = 700
"""Megabytes that it takes in the cache at the most."""


def modules(version: str, root: Path = cache.STOCK) -> Path:
    """Return the directory of a kernel's modules."""
    return root / "lib" / "modules" / version


def image(version: str, root: Path = cache.STOCK) -> Path:
    """Return a kernel's image: unpacked, if it could be."""
    unpacked = root / "boot" / f"vmlinux-{version}"
    return unpacked if unpacked.exists() else root / "boot" / f"vmlinuz-{version}"


def version_of(image: Path) -> str:
    """Return the version of the kernel in an image."""
    return image.name.partition("-")[2]


def unpack(packed: bytes) -> bytes | None:
    """Return the kernel in an image that unpacks itself; None if it is not packed by xz.

    Not to have it unpacked by a processor in software saves a third of the time until a guest is there.
    """
    place = packed.find(XZ)
    while place >= 0:
        with suppress(lzma.LZMAError):
            found = lzma.LZMADecompressor().decompress(packed[place:])
            if found.startswith(ELF):
                return found
        place = packed.find(XZ, place + 1)
    return None


def busybox(root: Path = cache.STOCK) -> Path:
    """Return the static program that prepares the guest's files."""
    return next(path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.exists())


def version(root: Path = cache.STOCK) -> str | None:
    """Return the version of the kernel in a directory; None when there is none."""
    images = sorted((root / "boot").glob("vmlinuz-*"))
    return version_of(images[-1]) if images else None


def packages(meta: str, needed: Callable[[str], list[str]]) -> list[str]:
    """Return the packages that a kernel is made of.

    Args:
        meta: the package that depends on the kernel of the release.
        needed: returns the packages that one depends on.
    """
    found: list[str] = []
    waiting = [meta]
    while waiting:
        for package in needed(waiting.pop()):
            if package.startswith(PARTS) and package not in found:
                found.append(package)
                waiting.append(package)
    return found


def fetch(say: Callable[[str], None]) -> None:
    """Put Debian's kernel into the cache.

    Args:
        say: reports progress.

    Raises:
        GuestError: a program is missing, the mirror cannot be reached, or the cache cannot be written.
    """
    require(TOOLS | FETCHING, "a guest by QEMU")
    with cache.workshop(SPACE) as work:
        say("[1/2] fetching Debian's kernel, about 70 MB")
        archive = Archive(work / "apt")
        root = work / "root"
        for package in [*packages(META, archive.needed), BUSYBOX]:
            say(f"      {package} {archive.unpack(package, root)}")
        say("[2/2] unpacking it, and reading what its modules need")
        if not (root / "lib").exists():
            (root / "lib").symlink_to("usr/lib")
        found = version(root)
        if found is None:
            raise GuestError(f"{META} brought no kernel")
        run(["depmod", "--basedir", root, found])
        if kernel := unpack(image(found, root).read_bytes()):
            (root / "boot" / f"vmlinux-{found}").write_bytes(kernel)
        shutil.rmtree(cache.STOCK, ignore_errors=True)
        root.rename(cache.STOCK)
