"""The guests of this machine: each test of this folder is for every backend whose kernel is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.guest import SCRIPTS, RunGuest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.guest)


@pytest.fixture(scope="session", params=["uml", "qemu"])
def argv(request: pytest.FixtureRequest) -> list[str]:
    """Return how a guest is started."""
    words = [sys.executable, "-I", str(SCRIPTS / "vm"), "--backend", request.param]
    found = subprocess.run([*words, "--find"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"tool missing: {found.stderr.removeprefix('polywan: ').rstrip()}")
    return words


@pytest.fixture(scope="session")
def guest(argv: list[str]) -> RunGuest:
    def run(*words: str, directory: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **more}
        return subprocess.run(
            [*argv, "--mem", "700", *words], cwd=directory, env=variables, capture_output=True, text=True, check=False
        )

    return run
