from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import TypeVar

import pytest

from polywan.core.net import Family
from polywan.probe.fake import FakeProber
from polywan.probe.prober import FAIL_DELAY, NetProber
from support.probe_orders import Method, ask, order, reported, take

T = TypeVar("T")
ABSENT = "no-such-link0"
TARGET = "203.0.113.1"


def run(work: Callable[[NetProber], Awaitable[T]]) -> T:
    async def main() -> T:
        prober = NetProber()
        try:
            return await work(prober)
        finally:
            prober.close()

    return asyncio.run(main())


def refuse(code: int) -> Callable[..., socket.socket]:
    def refused(*_: object) -> socket.socket:
        raise OSError(code, "refused")

    return refused


@pytest.mark.parametrize("methods", [("icmp",), ("tcp",), ("icmp", "tcp")])
def test_an_absent_link_is_reported_once_per_target_after_a_grace(methods: tuple[Method, ...]) -> None:
    start = time.monotonic()
    found = run(lambda prober: ask(prober, order(TARGET, "203.0.113.2", methods=methods, interface=ABSENT, timeout=5)))
    assert [(str(result.target), result.rtt) for result in found] == [(TARGET, None), ("203.0.113.2", None)]
    assert FAIL_DELAY <= time.monotonic() - start < 2


def test_the_grace_is_no_longer_than_the_timeout() -> None:
    start = time.monotonic()
    run(lambda prober: ask(prober, order(TARGET, interface=ABSENT, timeout=0.01)))
    assert time.monotonic() - start < FAIL_DELAY


@pytest.mark.parametrize("interface", ["", "a" * 16, "a/b", "lo\0b", "\udcff", "lo; reboot", "*" * 5000])
@pytest.mark.parametrize("method", ["icmp", "tcp"])
def test_a_name_no_link_can_have_is_a_result_without_an_answer(interface: str, method: Method) -> None:
    (found,) = run(lambda prober: ask(prober, order(TARGET, methods=(method,), interface=interface, timeout=0.01)))
    assert found.rtt is None


def test_a_port_that_no_target_can_have_is_a_result_without_an_answer() -> None:
    request = order(TARGET, methods=("tcp",), port=70000, interface=ABSENT, timeout=0.01)
    assert [result.rtt for result in run(lambda prober: ask(prober, request))] == [None]


def test_a_target_of_the_other_family_is_a_result_without_an_answer() -> None:
    request = replace(order(TARGET, interface=ABSENT, timeout=0.01), family=Family.V6)
    assert [result.rtt for result in run(lambda prober: ask(prober, request))] == [None]


@pytest.mark.parametrize("method", ["icmp", "tcp"])
@pytest.mark.parametrize(("code", "remedy"), [(errno.EPERM, "CAP_NET_RAW"), (errno.EMFILE, "LimitNOFILE")])
def test_a_denied_socket_is_remembered_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, method: Method, code: int, remedy: str
) -> None:
    async def probe(prober: NetProber) -> tuple[float | None, str | None]:
        monkeypatch.setattr("polywan.probe.bound.socket.socket", refuse(code))
        prober.start(order(TARGET, methods=(method,), timeout=0.01))
        monkeypatch.undo()
        return (await take(prober, 1))[0].rtt, prober.problem

    rtt, problem = run(probe)
    assert rtt is None
    assert problem is not None
    assert problem.startswith(f"no {method} probes: ")
    assert remedy in problem


def test_an_absent_link_is_no_problem_of_the_process() -> None:
    async def probe(prober: NetProber) -> str | None:
        await ask(prober, order(TARGET, methods=("icmp", "tcp"), interface=ABSENT, timeout=0.01))
        return prober.problem

    assert run(probe) is None


def test_close_can_be_called_twice_and_with_rounds_under_way() -> None:
    async def probe(prober: NetProber) -> int:
        lost = order(TARGET, interface=ABSENT, timeout=5)
        prober.start(lost)
        prober.close()
        prober.close()
        await ask(NetProber(), lost)
        return reported(prober).qsize()

    assert run(probe) == 0


def test_the_fake_notes_its_orders() -> None:
    fake = FakeProber(lambda _order, _target: 0.1)
    request = order(TARGET)
    fake.start(request)
    assert fake.orders == [request]


def test_an_answer_of_the_fake_after_the_timeout_is_silence_and_then_late() -> None:
    slow = ip_address(TARGET)
    fake = FakeProber(lambda _order, target: 0.3 if target.address == slow else 0.1)
    found = asyncio.run(ask(fake, order(TARGET, "203.0.113.2", timeout=0.2)))
    assert [(result.rtt, result.late) for result in found] == [(None, False), (0.3, True), (0.1, False)]
