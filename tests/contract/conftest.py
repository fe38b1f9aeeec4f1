"""The kernel under contract: both in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.kernels import FakeWorld, World, linux_world


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.netns)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    with linux_world() as linux:
        yield linux
