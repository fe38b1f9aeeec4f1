"""Machines of each release: the package on a system that was booted, with systemd as its first process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.machine import requirements
from support.machine.box import NEXT, Box
from support.machine.packages import as_version
from support.machine.trees import TreeError, tree

HERE = Path(__file__).parent
RELEASES = os.environ.get("POLYWAN_RELEASES", "bookworm trixie").split()
DEB = "POLYWAN_DEB"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.machine)


@cache
def _missing() -> str:
    return requirements.missing()


@pytest.fixture(scope="session")
def deb() -> Path:
    """The package: $POLYWAN_DEB, which scripts/test has built."""
    if found := os.environ.get(DEB):
        return Path(found)
    pytest.skip(f"tool missing: no package to install ({DEB}, which scripts/test machine builds)")


@pytest.fixture(scope="session")
def newer(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version of the package."""
    return as_version(deb, NEXT, tmp_path_factory.mktemp("newer"))


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> Path:
    """The tree of each release."""
    if reason := _missing():
        pytest.skip(reason)
    try:
        return tree(request.param)
    except TreeError as error:
        pytest.skip(f"tool missing: {error} (scripts/test machine makes it)")


@pytest.fixture(scope="module")
def bare(release: Path) -> Iterator[Box]:
    """A machine that has been booted, without the package."""
    with Box(release) as box:
        yield box


@pytest.fixture(scope="module")
def box(bare: Box, deb: Path) -> Box:
    """The same with the package, and the service in force on two uplinks."""
    bare.install(deb)
    bare.start()
    return bare
