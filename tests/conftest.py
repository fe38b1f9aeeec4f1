"""What test runs share: netns tests run in private namespaces or say why not; no skip goes unseen."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.examples import CI, examples
from support.own_cgroups import cover, uncover

if TYPE_CHECKING:
    from execnet import XSpec

# A busy machine is no property of the code. Developers look for new cases each time; continuous integration tries
# the same ones, so that the same commit gives the same answer.
settings.register_profile(
    "polywan",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=CI,
    max_examples=examples(100),
)
settings.load_profile("polywan")

INSIDE = os.environ.get("POLYWAN_NETNS") == "1"
EXCUSES = re.compile(r"kernel lacks|tool missing|this kernel has no|this kernel has cake|\S+ is absent \(package ")
"""How a skip begins that names what this machine cannot offer, be it a lack."""
NEWBORN = frozenset(
    ["lo", "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0", "teql0"]
)
"""Devices the kernel gives every new network namespace; any other belongs to somebody."""

ENTER = "import sys; from polywan.lab.sandbox import enter; enter(sys.argv[1:])"

_skips: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the outputs of golden cases anew")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not INSIDE:
        return
    from polywan.lab.sandbox import LabError, prepare

    if found := {name for _, name in socket.if_nameindex()} - NEWBORN:
        pytest.exit(f"POLYWAN_NETNS is set, but this network namespace is in use: {', '.join(sorted(found))}", 1)
    try:
        prepare()
    except LabError as error:
        pytest.exit(f"netns tests: {error}", returncode=1)
    if (own := cover()) is not None:
        session.config.add_cleanup(lambda: uncover(own))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Tests of real packets wait most of their time: some workers more than processors keep these busy."""
    return len(os.sched_getaffinity(0)) + 3 if INSIDE else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: Sequence[XSpec]) -> None:
    """Give each worker namespaces of its own: labs have the same names in all of them."""
    if INSIDE:
        for spec in specs:
            spec.python = shlex.join([sys.executable, "-I", "-c", ENTER, sys.executable])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INSIDE:
        return
    skip = pytest.mark.skip(reason="not in private namespaces (scripts/test and make test-netns make them)")
    for item in items:
        if item.get_closest_marker("netns") or item.get_closest_marker("web"):
            item.add_marker(skip)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _note(report.nodeid, report.longrepr)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _note(report.nodeid, report.longrepr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if unexcused() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if wrong := unexcused():
        terminalreporter.section("skipped although this machine could run them", red=True)
        for line in wrong:
            terminalreporter.line(line)


def unexcused() -> list[str]:
    """Where a skip is an error: inside the namespaces, unless it names what the machine lacks."""
    if not INSIDE:
        return []
    return [line for line in _skips if not EXCUSES.match(line.partition(": ")[2])]


def _note(nodeid: str, longrepr: object) -> None:
    reason = longrepr[2] if isinstance(longrepr, tuple) else longrepr
    _skips.append(f"{nodeid}: {str(reason).removeprefix('Skipped: ')}")
