"""What the daemon refuses over the socket, and with which status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from polywan.api.requests import OfUplink, What, Words
from polywan.core.errors import ControlError, KernelError, MissingFeature
from polywan.daemon.main import Service
from polywan.kernel import cgroups
from polywan.kernel.fake.kernel import FakeKernel
from support.daemons import places_in, running, service_of


def with_service(directory: Path, story: Callable[[Service, FakeKernel], Awaitable[None]]) -> None:
    """Run a story beside a daemon of two uplinks that is ready."""

    async def play() -> None:
        async with running(directory) as (daemon, kernel):
            await story(service_of(daemon, kernel, places_in(directory)), kernel)

    asyncio.run(play())


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
