"""The archive of a guest's first files: the kernel's format, and modules after what they need."""

from __future__ import annotations

import lzma
import stat
from pathlib import Path

from guest.initramfs import archive, contents, load_order, read_needs


def read(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read an archive as the kernel does (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    files: dict[str, tuple[int, bytes]] = {}
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[place + 110 : place + 110 + length - 1].decode()
        assert data[place + 110 + length - 1] == 0
        start = -(-(place + 110 + length) // 4) * 4
        if name == "TRAILER!!!":
            assert start == len(data)
            return files
        files[name] = (mode, data[start : start + size])
        place = -(-(start + size) // 4) * 4


def test_directories_come_first_and_files_are_whole() -> None:
    files = {"init": b"", "bin/a": b"1", "bin/abc": b"1234", "bin/d": b"12345"}
    found = read(archive(["bin"], files))
    assert list(found) == ["bin", *files]
    assert {name: contents for name, (mode, contents) in found.items() if stat.S_ISREG(mode)} == files
    assert stat.S_ISDIR(found["bin"][0])
    assert all(mode & 0o111 for mode, _ in found.values())


def test_a_module_comes_after_those_that_it_needs_and_once() -> None:
    lines = [
        "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko",
        "kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio_ring.ko kernel/virtio.ko",
        "kernel/net/9p/9pnet.ko:",
        "kernel/fs/netfs/netfs.ko:",
        "kernel/drivers/virtio/virtio_ring.ko: kernel/virtio.ko",
        "kernel/virtio.ko:",
    ]
    order = load_order(["9pnet_virtio", "9p", "overlay"], read_needs(lines))
    assert [Path(path).stem for path in order] == ["virtio", "virtio_ring", "9pnet", "9pnet_virtio", "netfs", "9p"]


def test_a_module_has_the_name_that_the_kernel_gives_it() -> None:
    needs = read_needs(["kernel/virtio-pci.ko.xz:"])
    assert load_order(["virtio_pci"], needs) == ["kernel/virtio-pci.ko.xz"]


def test_packed_modules_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"plain")
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"packed"))
    assert list(contents([tmp_path / "a.ko", tmp_path / "b.ko.xz"])) == [b"plain", b"packed"]
