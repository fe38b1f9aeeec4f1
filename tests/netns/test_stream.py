"""The stream of the real daemon: how soon it tells, that it adds up to the status, and how it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.document import Document
from polywan.api.events import LinkEvent
from polywan.api.requests import Nothing, OfOrder, OfUplink
from polywan.api.status import Status
from polywan.api.views.stream import Change, StreamSample
from polywan.core.errors import ControlError
from polywan.core.views.changes import changed, lasting, sampled
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from support.netns import polywan

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor


class Follower:
    """Follows a daemon in a thread, and knows when each event came; `ended` when no more will."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.events: list[tuple[float, Document]] = []
        self.ended = threading.Event()
        self._daemon = daemon
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        with suppress(ControlError):
            for event in self._daemon.client.follow(calls.LIVE, Nothing()):
                self.events.append((time.monotonic(), event))
        self.ended.set()

    @property
    def status(self) -> Status | None:
        """What all events so far add up to."""
        known: Status | None = None
        for _, event in [*self.events]:
            if isinstance(event, Status):
                known = event
            elif known is not None and isinstance(event, Change):
                known = changed(known, event)
            elif known is not None and isinstance(event, StreamSample):
                known = sampled(known, event)
        return known

    def moment_of(self, uplink: str, state: str) -> float | None:
        """Return when it was told that an uplink has a state; None so far."""
        for at, event in [*self.events]:
            if isinstance(event, Change) and any((u.name, u.state) == (uplink, state) for u in event.uplinks):
                return at
        return None


@contextmanager
def followed(daemon: DaemonProcess, wait_for: WaitFor) -> Iterator[Follower]:
    follower = Follower(daemon)
    wait_for(lambda: follower.status)
    yield follower


@pytest.mark.alone
def test_an_uplink_that_dies_is_on_the_wire_within_100_ms_of_the_decision(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    with followed(daemon, wait_for) as follower:
        lab.cut(1)
        at = wait_for(lambda: follower.moment_of("isp1", "down")) or 0.0
        decided = next(line.at for line in daemon.log if "uplink.down" in line.text)
        assert at - decided < 0.1
        entered = wait_for(lambda: [e for _, e in follower.events if isinstance(e, LinkEvent) and e.state == "down"])
        assert entered[0].uplink == "isp1"


def test_the_stream_adds_up_to_the_status_and_ends_with_the_daemon(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    def is_status() -> bool:
        known, now = follower.status, daemon.status()
        return known is not None and lasting(known) == lasting(now)

    with followed(daemon, wait_for) as follower:
        daemon.client.ask(calls.DISABLE, OfUplink(name="isp2"))
        lab.cut(3)
        wait_for(lambda: follower.moment_of("isp3", "down"))
        wait_for(is_status, timeout=10.0)
        wait_for(lambda: [e for _, e in follower.events if isinstance(e, StreamSample)])
        daemon.stop()
        assert follower.ended.wait(2.0)


def test_an_order_does_what_was_said_before(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 2, 1)))
    answer = daemon.client.ask(calls.EFFECT, OfOrder(name="isp1", order="drain"))
    said = polywan(daemon, "uplink", "drain", "isp1", "--dry-run")
    assert said.stdout.splitlines() == [*answer.text]
    assert {u.name: u.state for u in daemon.status().uplinks}["isp1"] == "up"
    assert polywan(daemon, "uplink", "drain", "isp1").returncode == 0
    assert {u.name: u.share for u in daemon.status().uplinks} == dict(answer.shares_after)


def test_the_socket_describes_itself(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    described = json.loads(polywan(daemon, "show", "openapi").stdout)
    assert described["openapi"] == "3.1.0"
    assert "/v1/stream" in described["paths"]
