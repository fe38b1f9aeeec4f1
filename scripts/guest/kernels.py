"""Which kernel a guest gets: one that is named, built, beside the checkout, or Debian's own by QEMU."""

from __future__ import annotations

import lzma
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guest import cache, stock
from guest.errors import GuestError
from guest.processes import lacking, require

Backend = Literal["uml", "qemu"]
BACKENDS: tuple[Backend, ...] = ("uml", "qemu")

NONE = (
    "there is no kernel for a guest; `scripts/vm --build` makes one in some 7 minutes, "
    "`scripts/vm --backend qemu --build` fetches Debian's, which is slower"
)
NO_STOCK = "there is no Debian kernel in the cache for QEMU; `scripts/vm --backend qemu --build` fetches it"
OUTDATED = "scripts/guest/kernel.config has changed since the last `scripts/vm --build`"


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be started."""

    backend: Backend
    path: Path
    """The program of user-mode Linux, or the image that QEMU loads."""
    origin: str
    """What it is and where it came from, in words."""

    def __str__(self) -> str:
        hint = f"; {OUTDATED}" if cache.is_outdated() else ""
        return f"{self.origin}: {self.path}{hint}"


def find(backend: Backend | None) -> Kernel:
    """Return the kernel for a guest.

    Args:
        backend: what it has to be; None takes user-mode Linux, and QEMU where there is none.

    Raises:
        GuestError: there is none, it is no program, or it cannot be unpacked.
    """
    if backend == "qemu":
        return debian()
    if kernel := uml():
        return kernel
    if backend is None and stock.version() and not lacking(stock.TOOLS):
        return debian()
    raise GuestError(f"{NONE}; {OUTDATED}" if cache.is_outdated() else NONE)


def uml() -> Kernel | None:
    """Return user-mode Linux, if there is one."""
    if named := os.environ.get("POLYWAN_VM_KERNEL"):
        return Kernel("uml", program(Path(named)), "user-mode Linux that POLYWAN_VM_KERNEL names")
    if cache.built().exists():
        return Kernel("uml", program(cache.built()), "user-mode Linux that scripts/vm --build made")
    if packed := shared():
        try:
            unpack(packed, cache.LINUX)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise GuestError(f"{packed} cannot be unpacked to {cache.LINUX}: {error}") from None
        return Kernel("uml", program(cache.LINUX), f"user-mode Linux from {packed.name}")
    if cache.LINUX.exists():
        return Kernel("uml", program(cache.LINUX), "user-mode Linux in the cache")
    return None


def debian() -> Kernel:
    """Return Debian's kernel for QEMU.

    Raises:
        GuestError: it is not in the cache, or QEMU is not there.
    """
    version = stock.version()
    if version is None:
        raise GuestError(NO_STOCK)
    require(stock.TOOLS, "a guest by QEMU")
    return Kernel("qemu", stock.image(version), f"QEMU with Debian's kernel {version}")


def program(path: Path) -> Path:
    """Return the path of a program.

    Raises:
        GuestError: it is none.
    """
    if not path.is_file() or not os.access(path, os.X_OK):
        raise GuestError(f"{path} is no program, so it is no kernel for a guest")
    return path


def shared() -> Path | None:
    """Return the newest packed kernel in shared/vm beside the checkout."""
    packed = sorted((cache.ROOT.parent / "shared" / "vm").glob("linux*.uml.xz"))
    return packed[-1] if packed else None


def unpack(packed: Path, image: Path) -> None:
    """Unpack a kernel unless that is done; another process that does the same meanwhile is no matter."""
    if image.exists() and image.stat().st_mtime >= packed.stat().st_mtime:
        return
    image.parent.mkdir(parents=True, exist_ok=True)
    new = image.with_suffix(f".{os.getpid()}")
    try:
        with lzma.open(packed) as source, new.open("wb") as target:
            shutil.copyfileobj(source, target)
        new.chmod(0o755)
        new.replace(image)
    finally:
        new.unlink(missing_ok=True)


def require_processor() -> None:
    """Refuse a machine on which no guest can run this machine's programs.

    Raises:
        GuestError: names the processor.
    """
    if platform.machine() != "x86_64":
        raise GuestError(f"a guest needs a processor of type x86_64, and this one is {platform.machine()}")
