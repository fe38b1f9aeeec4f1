"""Who answers each call of the socket, what the daemon refuses, and with which status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pytest

from polywan.api import calls
from polywan.api.calls import CALLS, Call
from polywan.api.document import Document
from polywan.api.requests import (
    DrainUplink,
    Nothing,
    OfClients,
    OfEvents,
    OfIncidents,
    OfMeasurements,
    OfMonth,
    OfOrder,
    OfPast,
    OfPolicy,
    OfSession,
    OfSpan,
    OfTrial,
    OfUplink,
    ToReload,
    ToTry,
    What,
    WhatToPlan,
    WhomToForget,
    Words,
)
from polywan.api.views.quota import SetQuota
from polywan.client import Client
from polywan.core.errors import ControlError, KernelError, MissingFeature
from polywan.core.policy.operator import Verb
from polywan.daemon.api.http import serving
from polywan.daemon.main import Service
from polywan.kernel import cgroups
from polywan.kernel.fake.kernel import FakeKernel
from support.daemons import daemon_over, places_in, running, service_of

HANDLERS: Final[dict[Call[Any, Any], tuple[str, Document]]] = {
    calls.STATUS: ("status", Nothing()),
    calls.WHY: ("why", Words(words={"to": "192.0.2.1"})),
    calls.FLOWS: ("_tracking.flows", Words(words={"uplink": "u1"})),
    calls.JOURNAL: ("_journalled.events", OfEvents(uplink="u1", since="2h")),
    calls.MEASURED: ("_measuring.measurements", OfMeasurements(uplink="u1", since="2h", points="100")),
    calls.AVAILABILITY: ("_measuring.availability", OfSpan(span="30d")),
    calls.INCIDENTS: ("_measuring.incidents", OfIncidents(uplink="u1", since="7d")),
    calls.VOLUMES: ("_measuring.volumes", OfMonth(month="2026-11")),
    calls.AFFINITY: ("_tracking.affinity", OfPolicy(policy="default")),
    calls.SHOW: ("show", What(what="nft")),
    calls.CLIENT_TOTALS: ("_tracking.clients", OfClients(limit="5")),
    calls.EFFECT: ("_effects.effect", OfOrder(name="u1", order="drain", deadline="5m")),
    calls.PENDING: ("_pending.pending", Nothing()),
    calls.CLEAR_AFFINITY: ("_tracking.clear", WhomToForget(all="true")),
    calls.DISABLE: ("_uplinks.disable", OfUplink(name="u1")),
    calls.DRAIN: ("_uplinks.drain", DrainUplink(name="u1", deadline="10m")),
    calls.ENABLE: ("_uplinks.enable", OfUplink(name="u1")),
    calls.TEST: ("_uplinks.test", OfUplink(name="u1")),
    calls.QUOTA: ("_entries.enter", SetQuota(name="u1", reading="37.2GB")),
    calls.EXEC_VIA: ("via", OfUplink(name="u1")),
    calls.PLAN: ("plan", WhatToPlan(files={"polywan.toml": ""}, namespace="net:[1]")),
    calls.RELOAD: ("_trials.reload", ToReload(session="192.0.2.1 1 192.0.2.2 22")),
    calls.TRIAL: ("_trials.state", Nothing()),
    calls.TRY: ("_trials.begin_trial", ToTry(id="a", by="b", until="c", seconds=90.0, files={"polywan.toml": ""})),
    calls.CONFIRM: ("_trials.confirm", OfTrial(id="a", by="b")),
    calls.ROLL_BACK: ("_trials.roll_back", OfTrial(id="a", by="b", reason="c")),
    calls.HISTORY: ("_trials.history", Nothing()),
    calls.PAST_TEXTS: ("_trials.past", OfPast(number="1")),
    calls.SESSION: ("_trials.session", OfSession(session="192.0.2.1 1 192.0.2.2 22")),
    calls.DOWN: ("down", Nothing()),
}
"""Who answers each call, and something to ask."""


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.path)
def test_each_call_is_answered_by_its_own_handler(
    tmp_path: Path, call: Call[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[tuple[str, Document]] = []

    def stub(name: str) -> Callable[[Document], Awaitable[Document]]:
        async def handler(asked: Document) -> Document:
            received.append((name, asked))
            raise ControlError("asked", 409)

        return handler

    async def play() -> None:
        kernel = FakeKernel()
        service = service_of(daemon_over(kernel, tmp_path), kernel, places_in(tmp_path))
        for name, _ in HANDLERS.values():
            holder, _, method = name.rpartition(".")
            monkeypatch.setattr(attrgetter(holder)(service) if holder else service, method, stub(name))
        async with serving(service.routes(), tmp_path):
            with pytest.raises(ControlError, match="asked"):
                await asyncio.to_thread(Client(tmp_path).ask, call, HANDLERS[call][1])

    asyncio.run(play())
    assert received == [HANDLERS[call]]


@pytest.mark.parametrize(
    ("call", "verb"),
    [(calls.DISABLE, Verb.DISABLE), (calls.DRAIN, Verb.DRAIN), (calls.ENABLE, None)],
    ids=["disable", "drain", "enable"],
)
def test_each_verb_puts_its_own_order_in_force(tmp_path: Path, call: Call[Any, Any], verb: Verb | None) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        async with serving(service.routes(), tmp_path):
            # What is enabled has to be out of use before.
            await service._uplinks.disable(OfUplink(name="u1" if verb is None else "u2"))
            await asyncio.to_thread(Client(tmp_path).ask, call, call.asked(name="u1"))
        order = service._daemon.state.known.memory.orders.get("u1")
        assert (order and order.verb) == verb

    with_service(tmp_path, story)


def with_service(directory: Path, story: Callable[[Service, FakeKernel], Awaitable[None]]) -> None:
    """Run a story beside a daemon of two uplinks that is ready."""

    async def play() -> None:
        async with running(directory) as (daemon, kernel):
            await story(service_of(daemon, kernel, places_in(directory)), kernel)

    asyncio.run(play())


def test_a_state_began_at_the_same_moment_in_every_answer_until_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        first = await service.status(Nothing())
        assert {(await service.status(Nothing())).uplinks[0].since for _ in range(100)} == {first.uplinks[0].since}
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3600.0)
        later = await service.status(Nothing())
        began, begins = (datetime.fromisoformat(one.uplinks[0].since or "") for one in (first, later))
        assert (begins - began).total_seconds() == pytest.approx(3600.0, abs=0.1)

    with_service(tmp_path, story)


def test_what_is_in_force_is_shown_and_nothing_else(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        assert "table inet polywan" in (await service.show(What(what="nft"))).text
        assert "fwmark" in (await service.show(What(what="rules"))).text
        with pytest.raises(ControlError, match="there is nothing to show by that name") as caught:
            await service.show(What(what="secrets"))
        assert caught.value.status == 404

    with_service(tmp_path, story)


def test_a_question_that_makes_no_sense_is_told_from_a_kernel_that_does_not_answer(tmp_path: Path) -> None:
    async def story(service: Service, kernel: FakeKernel) -> None:
        with pytest.raises(ControlError) as caught:
            await service.why(Words(words={}))
        assert caught.value.status == 400

        def ask(_: object) -> None:
            raise KernelError("route", 105, "no buffer space")

        assert (await service.why(Words(words={"to": "203.0.113.10"}))).outcome == "uplink"
        kernel.ask = ask  # type: ignore[assignment, method-assign] # no question is known that does it
        with pytest.raises(ControlError, match="no buffer space") as caught:
            await service.why(Words(words={"to": "203.0.113.10"}))
        assert caught.value.status == 502

    with_service(tmp_path, story)


def test_control_groups_that_cannot_be_asked_for_are_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking() -> None:
        raise MissingFeature("no control groups")

    monkeypatch.setattr(cgroups, "require", lacking)

    async def story(service: Service, kernel: FakeKernel) -> None:
        for name, status in (("u1", 501), ("u3", 404)):
            with pytest.raises(ControlError) as caught:
                await service.via(OfUplink(name=name))
            assert caught.value.status == status

    with_service(tmp_path, story)
