"""Connections that were read a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from polywan.core.world.conntrack import Flow
from polywan.daemon.views import recent
from polywan.daemon.views.recent import RecentFlows
from polywan.kernel.fake.tracker import Connection, FakeTracker


class Counting(FakeTracker):
    """Counts reads."""

    reads = 0

    def flows(self, mask: int, mark: int | None = None) -> Iterator[Flow]:
        self.reads += 1
        return super().flows(mask, mark)


def test_several_who_look_share_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Counting()
    tracker.connections_list = [Connection(mark=0x100)] * 5
    flows = RecentFlows(tracker)
    assert [len(flows.read(0x3F00)) for _ in range(3)] == [5, 5, 5]
    assert tracker.reads == 1
    monkeypatch.setattr(recent, "LEAST_AGE", 0.0)
    flows._good_until = 0.0
    tracker.connections_list = []
    assert len(flows.read(0x3F00)) == 0


def test_another_mask_is_another_question() -> None:
    tracker = Counting()
    flows = RecentFlows(tracker)
    flows.read(0x3F00)
    flows.read(0xFF)
    assert tracker.reads == 2


def test_an_expensive_read_is_good_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.5])
    clocks = SimpleNamespace(thread_time=lambda: next(times), monotonic=lambda: 100.0)
    monkeypatch.setattr(recent, "time", clocks)
    flows = RecentFlows(FakeTracker())
    flows.read(0x3F00)
    assert flows._good_until == pytest.approx(100.0 + 0.5 / recent.READING_SHARE)


def test_what_nobody_looks_at_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "UNUSED_FOR", 0.0)
    tracker = Counting()
    tracker.connections_list = [Connection(mark=0x100)]
    flows = RecentFlows(tracker)

    async def play() -> None:
        flows.used()
        flows.read(0x3F00)
        await asyncio.sleep(0.01)

    asyncio.run(play())
    assert flows._flows == ()
    flows.read(0x3F00)
    assert tracker.reads == 2
