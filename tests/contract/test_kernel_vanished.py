"""What the kernel forgets by itself of open TCP connections is remembered for a moment, and put back on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from contract.entries import Entry
from contract.kernels import LinuxWorld, linux_world
from contract.values import MASK
from polywan.core.net import FAMILIES, Family
from polywan.kernel.conntrack import forgotten
from polywan.kernel.conntrack.forgotten import ForgottenConnections

pytestmark = pytest.mark.netns

CLOSED = 8
OTHERS = 0xFF0000
"""Bits of the mark that are not ours."""


@pytest.fixture
def linux() -> Iterator[LinuxWorld]:
    with linux_world() as world:
        yield world


@pytest.fixture
def memory(linux: LinuxWorld) -> Iterator[ForgottenConnections]:
    memory = ForgottenConnections()
    memory.listen(MASK)
    yield memory
    memory.listen(0)


def tcp(port: int, mark: int = 0x100, family: Family = Family.V4, state: int = 3) -> Entry:
    return Entry(protocol="tcp", port=port, mark=mark, family=family, state=state)


def expire(linux: LinuxWorld, *entries: Entry) -> None:
    linux.expire(entries)
    assert kept(linux) == []


def kept(linux: LinuxWorld) -> Sequence[tuple[int | None, int]]:
    return sorted((flow.client_port, flow.mark) for flow in linux.kernel.flows(MASK | OTHERS))


@pytest.mark.parametrize("family", FAMILIES)
def test_open_tcp_of_one_mark_and_family_comes_back_with_the_mark_that_nobody_has(
    linux: LinuxWorld, memory: ForgottenConnections, family: Family
) -> None:
    other = next(f for f in FAMILIES if f is not family)
    wanted = [tcp(1, 0x100, family), tcp(2, 0x100 | OTHERS, family), tcp(3, 0x100, family, state=5)]
    expire(linux, *wanted, tcp(4, 0x200, family), tcp(5, 0x100, other), tcp(6, 0, family))
    assert memory.put_back(0x100, MASK, family).connections == 3
    assert kept(linux) == [(1, MASK), (2, MASK | OTHERS), (3, MASK)]
    assert {flow.state for flow in linux.kernel.flows(MASK)} == {"ESTABLISHED"}
    assert memory.put_back(0x100, MASK, family).connections == 0
    assert memory.put_back(0x200, MASK, family).connections == 1


def test_what_has_ended_or_is_no_tcp_does_not_come_back(linux: LinuxWorld, memory: ForgottenConnections) -> None:
    expire(linux, tcp(1, state=1), tcp(2, state=CLOSED), Entry(mark=0x100, port=3))
    assert memory.put_back(0x100, MASK, Family.V4).connections == 0


def test_what_somebody_had_deleted_does_not_come_back(linux: LinuxWorld, memory: ForgottenConnections) -> None:
    linux.track([Entry(protocol="tcp", mark=0x100)])
    assert linux.kernel.drop(0x100, MASK, Family.V4, lambda _: True) == 1
    assert memory.put_back(0x100, MASK, Family.V4).connections == 0


@pytest.mark.parametrize(("answered", "connections", "mark"), [(False, 1, MASK), (True, 0, 0x200)])
def test_only_what_was_taken_up_without_any_answer_makes_room(
    linux: LinuxWorld, memory: ForgottenConnections, answered: bool, connections: int, mark: int
) -> None:
    expire(linux, tcp(1))
    linux.track([Entry(protocol="tcp", port=1, mark=0x200, answered=answered)])
    assert memory.put_back(0x100, MASK, Family.V4).connections == connections
    assert kept(linux) == [(1, mark)]


def test_untranslated_clients_are_named_since_they_may_be_this_box_itself(
    linux: LinuxWorld, memory: ForgottenConnections
) -> None:
    expire(linux, tcp(1))
    assert memory.put_back(0x100, MASK, Family.V4).own == {bytes((192, 0, 2, 1))}


def test_keeping_the_buffer_empty_forgets_nothing(linux: LinuxWorld, memory: ForgottenConnections) -> None:
    expire(linux, tcp(1), tcp(2))
    memory.keep()
    assert memory.put_back(0x100, MASK, Family.V4).connections == 2


def test_what_vanished_long_ago_does_not_come_back(
    linux: LinuxWorld, memory: ForgottenConnections, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire(linux, tcp(1))
    memory.keep()
    monkeypatch.setattr(forgotten, "RECENT", -1.0)
    assert memory.put_back(0x100, MASK, Family.V4).connections == 0


def test_nothing_is_told_during_a_pause(linux: LinuxWorld, memory: ForgottenConnections) -> None:
    memory.pause(paused=True)
    expire(linux, tcp(1))
    memory.pause(paused=False)
    expire(linux, tcp(2))
    assert memory.put_back(0x100, MASK, Family.V4).connections == 1
    assert kept(linux) == [(2, MASK)]
