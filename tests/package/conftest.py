"""The Debian package, built once for all its tests, and Debian systems to install it in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.debian_roots import DebianRoot, base
from support.packages import build

HERE = Path(__file__).parent
SUITES = ("bookworm", "trixie", "sid")
"""With Python 3.11, 3.13, and the newest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.package)


@pytest.fixture(scope="session")
def debian() -> None:
    if missing := [tool for tool in ("dpkg-buildpackage", "dh") if shutil.which(tool) is None]:
        pytest.skip(f"tool missing: {', '.join(missing)} (packages dpkg-dev and debhelper)")


@pytest.fixture(scope="session")
def deb(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def later_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same package with a higher version."""
    place = tmp_path_factory.mktemp("later")
    subprocess.run(["dpkg-deb", "--raw-extract", deb, place / "all"], check=True)
    control = place / "all/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", "Version: 9.9.9", control.read_text("utf-8")), "utf-8")
    subprocess.run(["dpkg-deb", "--build", "-z0", place / "all", place / "later.deb"], check=True, capture_output=True)
    return place / "later.deb"


@pytest.fixture(scope="session")
def tree(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tree")
    subprocess.run(["dpkg-deb", "--extract", deb, place], check=True)
    return place


@pytest.fixture(scope="session")
def fresh_system() -> Callable[[str], Path]:
    def make(suite: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root can install packages into a folder")
        try:
            return base(suite)
        except OSError as error:
            pytest.skip(f"no Debian system: {error}")

    return make


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def prepared(
    fresh_system: Callable[[str], Path], deb: Path, later_deb: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], DebianRoot]:
    """Return what makes a fresh Debian system that has the packages in its /tmp."""

    def make(suite: str) -> DebianRoot:
        system = DebianRoot.begin(tmp_path_factory.mktemp(f"fresh-{suite}"), fresh_system(suite))
        system.put(deb, "tmp/polywan.deb")
        system.put(later_deb, "tmp/later.deb")
        return system

    return make


@pytest.fixture(scope="session")
def installed(
    prepared: Callable[[str], DebianRoot], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[DebianRoot, str]]:
    """Return what installs the package, once for each suite, with what dpkg says; copy it before you change it."""
    done: dict[str, tuple[DebianRoot, str]] = {}

    def install(suite: str) -> tuple[DebianRoot, str]:
        if suite not in done:
            system = prepared(suite)
            done[suite] = system, system.run("dpkg --install /tmp/polywan.deb 2>&1").stdout
        return done[suite]

    return install
