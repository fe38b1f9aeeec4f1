"""What the fixtures of tests/netns give: the shapes of their callables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from polywan.lab.daemon import Daemon
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab

T = TypeVar("T")


class BuildLab(Protocol):
    """Builds a lab with the options of `polywan.lab.network.build`; it is taken down after the test."""

    def __call__(self, uplinks: int = 3, **options: object) -> Lab: ...


class StartDaemon(Protocol):
    """Starts the daemon with a configuration, waits until it is ready, and ends it after the test.

    The test fails when the daemon logged an error or a traceback, unless `may_complain`.
    """

    def __call__(
        self, lab: Lab, toml: str, *, namespace: Namespace | None = None, may_complain: bool = False
    ) -> Daemon: ...


class WaitFor(Protocol):
    """Waits until a predicate returns something true, and returns that; the test fails when time is up."""

    def __call__(self, predicate: Callable[[], T], timeout: float = 5.0, what: str = "") -> T: ...
