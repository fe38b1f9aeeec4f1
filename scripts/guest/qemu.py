"""QEMU: Debian's own kernel on a computer in software, which reads this machine's files over 9p.

/dev/kvm is not asked for. Where it is there it may be a nested one that runs a few instructions and then no kernel.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from guest import initramfs, stock
from guest.share import SYSTEM, Request

LOADED: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""Modules without which the guest has no files. All others it loads itself."""

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do
    insmod "$module"
done
nine=trans=virtio,version=9p2000.L,msize=512000
lower=/lower top=/top new=/new
mount -t 9p -o ro,$nine,cache=loose root $lower || poweroff -f
mount -t tmpfs -o mode=755 top $top
mkdir $top/over $top/work
{SYSTEM}
mount -t 9p -o $nine share $new/mnt/share || poweroff -f
mkdir -p $new/lib/modules
mount -o bind "$lower$(cat $new/mnt/share/modules)" $new/lib/modules
number=0
while read -r kept; do
    mkdir -p "$new$kept"
    mount -t 9p -o $nine,cache=mmap kept$number "$new$kept"
    number=$((number + 1))
done < $new/mnt/share/kept
exec switch_root $new /bin/sh /mnt/share/run
"""
LINE: Final = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr dummy.numdummies=0 ifb.numifbs=0 bonding.max_bonds=0"
)
DIRECTORIES: Final = ("bin", "dev", "lower", "modules", "new", "proc", "sys", "top")


def first_files(version: str) -> bytes:
    """Return what the kernel unpacks before it has any other file."""
    modules = stock.modules(version)
    needs = initramfs.read_needs((modules / "modules.dep").read_text().splitlines())
    order = initramfs.load_order(LOADED, needs)
    # The shell sorts their names.
    names = [f"modules/{number:02}-{initramfs.module_of(path)}.ko" for number, path in enumerate(order)]
    files = dict(zip(names, initramfs.contents(modules / path for path in order), strict=True))
    return initramfs.archive(DIRECTORIES, {"init": INIT.encode(), "bin/busybox": stock.busybox().read_bytes(), **files})


def exported(path: Path, tag: str, *more: str) -> list[str]:
    """Return the words by which QEMU gives a directory to the guest."""
    # In an option of QEMU a comma that is part of a value is doubled.
    place = str(path).replace(",", ",,")
    return ["-virtfs", ",".join(["local", f"path={place}", f"mount_tag={tag}", "security_model=none", *more])]


def boot(share: Path, image: Path, request: Request) -> subprocess.Popen[bytes]:
    """Start the guest."""
    version = stock.version_of(image)
    (share / "modules").write_text(str(stock.modules(version).parent.resolve()))
    first = share / "first.cpio"
    first.write_bytes(first_files(version))
    console = str(share / "console").replace(",", ",,")
    words = [
        stock.QEMU, "-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(request.cpus),
        "-m", str(request.mem), "-nodefaults", "-display", "none", "-no-reboot",
        "-kernel", str(image), "-initrd", str(first),
        "-append", LINE,
        "-serial", f"file:{console}",
        *exported(Path("/"), "root", "readonly=on", "multidevs=remap"),
        *exported(share, "share"),
    ]  # fmt: skip
    for number, path in enumerate(request.writable):
        words += exported(path, f"kept{number}", "multidevs=remap")
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
