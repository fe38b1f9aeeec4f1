"""What `polywan events` may ask, and what it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from polywan.api.codec import decode
from polywan.api.events import Events
from polywan.api.requests import OfEvents
from polywan.core.errors import ControlError
from polywan.core.journal.changes import Change, Standing, What
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state.state import State
from polywan.daemon.api.events import MOST_AT_ONCE, Journalled, since_of
from polywan.daemon.api.http import serving
from polywan.daemon.journal import Journal
from polywan.daemon.tasks.recording import Recorder
from polywan.files import SOCKET
from polywan.kernel.fake.kernel import FakeKernel
from support.daemons import daemon_over, places_in, service_of

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", NOW - 7200),
        ("90 s", NOW - 90),
        ("7d", NOW - 7 * 86400),
        ("2026-11-30T08:00:00+00:00", datetime.fromisoformat("2026-11-30T08:00:00+00:00").timestamp()),
        ("2026-11-30 08:00", datetime.fromisoformat("2026-11-30T08:00").astimezone().timestamp()),
        ("2026-11-30", datetime.fromisoformat("2026-11-30").astimezone().timestamp()),
    ],
)
def test_a_time_is_a_duration_or_a_moment(text: str, moment: float) -> None:
    assert since_of(text, NOW) == moment


@pytest.mark.parametrize("text", ["yesterday", "", "2 fortnights", "9999999999d", "-3h", "\x1b[2J", "1" * 5000])
def test_any_other_time_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ControlError, match='since: expected a duration such as "2h", or a time such as') as refused:
        since_of(text, NOW)
    assert refused.value.status == 400
    assert str(refused.value).isprintable()


def change(name: str) -> Change:
    one = Standing(
        uplink=name,
        interface="wan1",
        state=UplinkState.UP,
        reason="well",
        families={},
        ends={},
        since=0.0,
        ends_since=0.0,
    )
    return Change(what=What.FOUND, at=0.0, before=None, after=one, reason="well", lasted=None)


Ask = Callable[..., Coroutine[Any, Any, Events]]


def play(tmp_path: Path, story: Callable[[Recorder, Ask, asyncio.Event], Awaitable[None]]) -> None:
    async def whole() -> None:
        recorder, stop = Recorder(Journal(tmp_path)), asyncio.Event()
        await recorder.load()
        journalled = Journalled(recorder, State, stop)

        async def ask(**words: str) -> Events:
            written = await journalled.events(OfEvents(**words))
            assert isinstance(written.pieces, list)
            return decode(Events, json.loads(b"".join(written.pieces)))

        tasks = [asyncio.create_task(recorder.run()), asyncio.create_task(recorder.keep())]
        async with asyncio.timeout(10):
            await story(recorder, ask, stop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await recorder.close()

    asyncio.run(whole())


def test_a_long_journal_is_answered_in_parts_that_follow_each_other(tmp_path: Path) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        for number in range(250):
            recorder.record((change(f"u{number % 2}"),))
        await recorder.arrival(249)
        found, last, more = [], 0, True
        while more:
            part = await ask(after=str(last))
            assert len(part.events) <= MOST_AT_ONCE
            found += [e.id for e in part.events]
            last, more = part.last, part.more
        assert found == list(range(1, 251))
        newest = await ask()
        assert [e.id for e in newest.events] == list(range(151, 251))
        assert (newest.more, newest.last) == (False, 250)
        assert [e.id for e in (await ask(uplink="u1", after="246")).events] == [248, 250]

    play(tmp_path, story)


def test_a_question_that_waits_is_answered_by_the_next_entry_of_that_uplink(tmp_path: Path) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        recorder.record((change("a"),))
        await recorder.arrival(0)
        asked = asyncio.create_task(ask(uplink="b", after="1", wait="30"))
        for name in ("a", "b"):
            await asyncio.sleep(0.01)
            assert not asked.done()
            recorder.record((change(name),))
        answer = await asked
        assert [e.uplink for e in answer.events] == ["b"]
        assert answer.last == 3

    play(tmp_path, story)


def test_a_daemon_that_ends_answers_whoever_waits(tmp_path: Path) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        asked = asyncio.create_task(ask(after="0", wait="30"))
        await asyncio.sleep(0.01)
        stop.set()
        assert (await asked).events == ()

    play(tmp_path, story)


@pytest.mark.parametrize("words", [{"after": "x"}, {"after": "-1"}, {"wait": "1e3"}, {"after": "9" * 400}])
def test_numbers_that_are_none_are_refused(tmp_path: Path, words: dict[str, str]) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        with pytest.raises(ControlError, match="expected a whole number"):
            await ask(**words)

    play(tmp_path, story)


def test_a_name_that_no_uplink_has_or_had_is_refused(tmp_path: Path) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        with pytest.raises(ControlError, match="there is no uplink"):
            await ask(uplink="nobody")
        recorder.record((change("gone"),))
        await recorder.arrival(0)
        assert len((await ask(uplink="gone")).events) == 1

    play(tmp_path, story)


def test_whoever_follows_over_restarts_misses_nothing_and_sees_nothing_twice(tmp_path: Path) -> None:
    followed: dict[str, str] = {"after": "0"}
    seen: list[int] = []

    async def follow(ask: Ask) -> None:
        answer = await ask(**followed, wait="1")
        seen.extend(e.id for e in answer.events)
        followed.update(after=str(answer.last), journal=answer.journal)

    async def first(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        recorder.record(tuple(change("a") for _ in range(3)))
        await recorder.arrival(2)
        await follow(ask)

    async def next_one(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        recorder.record((change("a"), change("a")))
        await recorder.arrival(recorder.last)
        await follow(ask)

    play(tmp_path, first)
    play(tmp_path, next_one)
    assert seen == [1, 2, 3, 4, 5]
    # The next one finds another file: its entries are new, whatever their numbers are.
    (tmp_path / "events.db").unlink()
    play(tmp_path, next_one)
    assert seen[5:] == [1, 2]


def test_a_number_that_nothing_has_reached_is_answered_with_what_this_daemon_knows(tmp_path: Path) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        recorder.record((change("a"),))
        await recorder.arrival(0)
        answer = await ask(after="5000", wait="30")
        assert ([e.id for e in answer.events], answer.last) == ([1], 1)

    play(tmp_path, story)


def test_a_time_holds_for_what_follows_the_first_part_too(tmp_path: Path) -> None:
    async def story(recorder: Recorder, ask: Ask, stop: asyncio.Event) -> None:
        recorder.record((change("a"),))
        await recorder.arrival(0)
        assert (await ask(after="0", since="2099-01-01")).events == ()

    play(tmp_path, story)


def test_a_client_that_goes_is_not_waited_for(tmp_path: Path) -> None:
    def waiting() -> int:
        return sum("arrival" in str(task.get_coro()) for task in asyncio.all_tasks())

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while waiting() != count:
                await asyncio.sleep(0.01)

    async def run() -> None:
        kernel = FakeKernel()
        service = service_of(daemon_over(kernel, tmp_path), kernel, places_in(tmp_path))
        async with serving(service.routes(), tmp_path):
            _, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
            writer.write(b"GET /v1/events?after=0&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(1)
            writer.close()
            await until(0)

    asyncio.run(run())
