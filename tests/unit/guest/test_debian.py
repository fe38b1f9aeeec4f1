"""Packages for a guest: whose mirror, which settings, which of them."""

from __future__ import annotations

import lzma
from pathlib import Path

from guest.debian import mirrors, own_settings, sources
from guest.stock import image, packages, unpack, version, version_of


def test_mirrors_are_those_of_this_systems_release() -> None:
    lines = [
        "'http://other.invalid/tools/dists/stable/InRelease' other 0",
        "'http://mirror.invalid/debian/dists/trixie/InRelease' one 0 ",
        "'http://mirror.invalid/debian/dists/trixie-updates/InRelease' two 0 ",
        "'http://mirror.invalid/debian/dists/trixie/main/binary-amd64/Packages.xz' three 0",
        "'http://other.invalid/more/dists/trixie/InRelease' four 0",
        "E: something else",
    ]
    assert mirrors(lines, "trixie") == ["http://mirror.invalid/debian", "http://other.invalid/more"]


def test_apt_works_below_one_directory_with_the_proxy_and_without_the_programs_of_the_system() -> None:
    dumped = [
        'Acquire::http::Proxy "http://proxy.invalid:3128";',
        'Dir::State::lists "lists/";',
        'APT::Update::Post-Invoke-Success:: "refresh-the-menu";',
        "a warning",
    ]
    lines = own_settings(dumped, Path("/somewhere")).splitlines()
    assert lines[0] == dumped[0]
    assert not any("refresh" in line or "warning" in line for line in lines)
    # The last line about a setting counts.
    assert lines.index('Dir::State::lists "/somewhere/lists";') > lines.index(dumped[1])
    assert 'Dir::Etc::parts "/dev/null";' in lines


def test_a_source_is_signed_by_debian_where_its_keys_are_there() -> None:
    assert sources("http://mirror.invalid/debian", "trixie", None).splitlines() == [
        "Types: deb",
        "URIs: http://mirror.invalid/debian",
        "Suites: trixie",
        "Components: main",
    ]
    assert sources("http://mirror.invalid/debian", "trixie", Path("/keys")).endswith("\nSigned-By: /keys\n")


def test_a_kernel_is_made_of_its_image_and_the_package_of_its_modules() -> None:
    needs = {
        "linux-image-amd64": ["linux-base", "linux-image-7.3-amd64"],
        "linux-image-7.3-amd64": ["kmod", "linux-modules-7.3-amd64", "linux-image-7.3-amd64"],
    }
    assert packages("linux-image-amd64", lambda package: needs.get(package, [])) == [
        "linux-image-7.3-amd64",
        "linux-modules-7.3-amd64",
    ]


def test_a_kernel_is_found_in_an_image_that_unpacks_itself() -> None:
    kernel = b"\x7fELF and so on"
    other = lzma.compress(b"another part")
    assert unpack(b"code" + other + b"\xfd7zXZ\0 by chance" + lzma.compress(kernel) + b"rest") == kernel
    assert unpack(b"code" + other) is None


def test_an_unpacked_image_is_taken_before_a_packed_one(tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    assert version(tmp_path) is None
    (boot / "vmlinuz-6.1.0-1-amd64").touch()
    found = version(tmp_path)
    assert found == "6.1.0-1-amd64"
    assert image(found, tmp_path) == boot / "vmlinuz-6.1.0-1-amd64"
    (boot / "vmlinux-6.1.0-1-amd64").touch()
    assert image(found, tmp_path) == boot / "vmlinux-6.1.0-1-amd64"
    assert version_of(image(found, tmp_path)) == found
