"""What everybody is sent who follows the daemon: the real loop and socket over the kernel in memory."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from polywan.api.document import Document
from polywan.api.events import LinkEvent
from polywan.api.requests import Nothing, OfUplink
from polywan.api.status import Status, UplinkStatus
from polywan.api.views.stream import Change, StreamSample
from polywan.core.policy.operator import Verb
from polywan.core.views.changes import changed, lasting, sampled
from polywan.daemon.api.http import serving
from polywan.daemon.journal import Journal
from polywan.daemon.main import Service
from polywan.daemon.tasks.recording import Recorder
from polywan.daemon.views import streaming
from polywan.daemon.views.streaming import MOST_BEHIND, Follower
from polywan.kernel.fake.kernel import FakeKernel
from polywan.kernel.fake.tracker import Connection
from support.daemons import places_in, running, service_with
from support.following import following

Story = Callable[[Service, FakeKernel], Awaitable[None]]
GET = b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n"


def with_service(directory: Path, story: Story, uplinks: int = 2) -> None:
    async def play() -> None:
        recorder = Recorder(Journal(directory))
        async with running(directory, uplinks, recorder=recorder) as (daemon, kernel):
            service = service_with(recorder, daemon, kernel, places_in(directory))
            async with serving(service.routes(), directory):
                try:
                    await story(service, kernel)
                finally:
                    service.stop.set()

    asyncio.run(play())


def test_a_snapshot_comes_first_and_is_the_status(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            first = await events.any()
            assert isinstance(first, Status)
            assert lasting(first) == lasting(await service.status(Nothing()))

    with_service(tmp_path, story)


def test_a_lost_uplink_is_told_at_once_and_entered(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            known = await events.next(Status)
            loop = asyncio.get_running_loop()
            kernel.set_link(replace(kernel.links["wan1"], carrier=False))
            began = loop.time()
            entered: list[str] = []
            while known.uplinks[0].state == "up" or "u1" not in entered:
                event = await events.any()
                if isinstance(event, LinkEvent):
                    entered.append(event.uplink)
                elif isinstance(event, Change):
                    known = changed(known, event)
            assert loop.time() - began < 0.5  # some of it is the test's own; tests/netns measures

    with_service(tmp_path, story)


def test_what_was_sent_adds_up_to_the_status(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            known = await events.next(Status)
            await service._uplinks.disable(OfUplink(name="u1"))
            now = await service.status(Nothing())
            while lasting(known) != lasting(now):
                event = await events.any()
                if isinstance(event, Change):
                    known = changed(known, event)
                elif isinstance(event, StreamSample):
                    known = sampled(known, event)

    with_service(tmp_path, story)


def test_a_sample_counts_the_connections_of_each_uplink(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        kernel.connections_list += [Connection(mark=0x100)] * 3 + [Connection(mark=0x200)]
        async with following(tmp_path) as events:
            found = await events.next(StreamSample)
            assert {n: (s.connections, s.share_seen) for n, s in found.uplinks.items()} == {
                "u1": (3, 0.75),
                "u2": (1, 0.25),
            }

    with_service(tmp_path, story)


def test_a_rate_is_about_the_last_second(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            await events.next(StreamSample)
            kernel.links["wan1"] = replace(kernel.links["wan1"], rx_bytes=10**6)
            rates = [(await events.next(StreamSample)).uplinks["u1"].rx_bps for _ in range(2)]
            assert 4e6 < (rates[0] or 0) < 16e6
            assert rates[1] == 0

    with_service(tmp_path, story)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the events that are made from now on."""
    made: list[str] = []
    real = streaming._event

    def event(name: str, document: Document) -> bytes:
        made.append(name)
        return real(name, document)

    monkeypatch.setattr(streaming, "_event", event)
    return made


def test_nothing_is_made_while_nobody_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            await events.next(Status)
        service._streamer._end()
        made = recorded(monkeypatch)
        kernel.set_link(replace(kernel.links["wan1"], carrier=False))
        await asyncio.sleep(1.2)
        assert made == []
        assert service._streamer._tasks == []

    with_service(tmp_path, story)


def test_streams_end_with_the_daemon(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            await events.next(Status)
            service.stop.set()
            while await events.any() is not None:
                pass
        # What comes afterwards ends at once.
        assert [event async for event in service._streamer.follow(Nothing())] == []

    with_service(tmp_path, story)


def test_each_event_is_made_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        made = recorded(monkeypatch)
        async with following(tmp_path) as one, following(tmp_path) as other:
            await asyncio.gather(one.next(Status), other.next(Status))
            await asyncio.gather(one.next(StreamSample), other.next(StreamSample))
            assert made.count("sample") == 1

    with_service(tmp_path, story)


def test_at_most_four_changes_come_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[float] = []
    real = streaming._in_pieces

    async def in_pieces(name: str, document: Document, uplinks: Sequence[UplinkStatus]) -> bytes:
        if name == "change":
            moments.append(asyncio.get_running_loop().time())
        return await real(name, document, uplinks)

    monkeypatch.setattr(streaming, "_in_pieces", in_pieces)

    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            known = await events.next(Status)
            for number in range(7):
                await service._uplinks.order("u1", Verb.ENABLE if number % 2 else Verb.DISABLE)
            while known.uplinks[0].state != "disabled" or len(moments) < 2:
                known = changed(known, await events.next(Change))
        # They are due a quarter of a second apart; on a busy machine the first of five may be made late.
        assert all(later - first > 0.5 for first, later in zip(moments[:-4], moments[4:], strict=True))

    with_service(tmp_path, story)


def test_a_failure_ends_the_streams_and_not_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with following(tmp_path) as events:
            await events.next(Status)

            def broken(*_: object) -> None:
                raise ZeroDivisionError("nobody knows")

            with monkeypatch.context() as patched:
                patched.setattr(streaming, "_event", broken)
                while await events.any() is not None:
                    pass
        async with following(tmp_path) as events:
            await events.next(Status)

    caplog.set_level(logging.ERROR)
    with_service(tmp_path, story)
    assert [r.getMessage() for r in caplog.records] == ["control.failed: /v1/stream: ZeroDivisionError: nobody knows"]


def test_who_does_not_read_is_sent_away_and_keeps_nothing() -> None:
    follower = Follower()
    put = [follower.put(b"x" * 1000) for _ in range(MOST_BEHIND + 1)]
    assert put == [True] * MOST_BEHIND + [False]

    async def all_of_it() -> list[bytes]:
        return [events async for events in follower.events()]

    assert asyncio.run(all_of_it()) == []


def test_who_goes_is_forgotten(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "control.sock"))
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, GET)
            while not service._streamer._followers:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while service._streamer._followers or service._streamer._tasks:
                await asyncio.sleep(0.01)

    with_service(tmp_path, story)


def test_silence_is_broken_by_a_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "KEEP_ALIVE", 0.05)

    async def story(service: Service, kernel: FakeKernel) -> None:
        stream = service._streamer.follow(Nothing())
        monkeypatch.setattr(service._streamer, "looked", lambda _: None)
        async with asyncio.timeout(5):
            while await anext(stream) != b":\n\n":
                pass
        await stream.aclose()  # type: ignore[attr-defined] # a generator

    with_service(tmp_path, story)
