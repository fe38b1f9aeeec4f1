"""The Debian package, built once for all its tests, and Debian systems to install it in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.debian_roots import DebianRoot, base

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITES = ("bookworm", "trixie", "sid")
"""With Python 3.11, 3.13, and the newest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.package)


def build(out: Path, *options: str) -> Path:
    """Return the package of this checkout."""
    done = subprocess.run(
        [ROOT / "scripts/package", "--out", out, *options], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def debian() -> None:
    if missing := [tool for tool in ("dpkg-buildpackage", "dh") if shutil.which(tool) is None]:
        pytest.skip(f"tool missing: {', '.join(missing)} (packages dpkg-dev and debhelper)")


@pytest.fixture(scope="session")
def deb(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def later_deb(debian: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("later"), "--version", "9.9.9")


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


@pytest.fixture(params=SUITES)
def system(
    request: pytest.FixtureRequest, fresh_system: Callable[[str], Path], deb: Path, tmp_path: Path
) -> DebianRoot:
    """Return a fresh Debian system, with the package in its /tmp."""
    system = DebianRoot.begin(fresh_system(request.param), tmp_path)
    system.put(deb, "tmp/polywan.deb")
    return system
