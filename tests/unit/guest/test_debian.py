"""Packages for a guest: whose mirror, which settings, which of them."""

from __future__ import annotations

from pathlib import Path

from guest.debian import mirrors, own_settings, sources
from guest.stock import packages


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
    lines = own_settings(dumped, Path("/work")).splitlines()
    assert lines[0] == dumped[0]
    assert not any("refresh" in line or "warning" in line for line in lines)
    # The last line about a setting counts.
    assert lines.index('Dir::State::lists "/work/lists";') > lines.index(dumped[1])
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
