"""`polywan down` when something is in its way: a daemon never stays that decides nothing and seems to run."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from polywan.api.requests import Nothing
from polywan.api.running import Removed
from polywan.cli import down as verb
from polywan.cli import exit_code, group
from polywan.client import Client
from polywan.core.errors import BusyError, ControlError, KernelError
from polywan.core.state.memory import Memory
from polywan.daemon import offline, store
from polywan.daemon.main import Places
from polywan.daemon.removing import recalled, remove
from polywan.kernel.fake.kernel import FakeKernel
from support.daemons import kernel_of, running, service_of
from support.engine_world import Engine, config, world

SETTING = "net/ipv4/conf/all/accept_local"


def printed_by_down(places: Places, break_it: Callable[[FakeKernel], None]) -> tuple[Any, FakeKernel]:
    """Return what `down` answers or raises; fails unless the service stops within its time in any case."""

    def prepare(kernel: FakeKernel) -> None:
        kernel.sysctls = {SETTING: "0"}

    async def play() -> tuple[Any, FakeKernel]:
        async with running(places.state_dir, prepare=prepare) as (daemon, kernel):
            service = service_of(daemon, kernel, places)
            break_it(kernel)
            try:
                answer: Any = await service.down(Nothing())
            except ControlError as error:
                answer = error
            await service.stop.wait()
        return answer, kernel

    return asyncio.run(play())


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "polywan.toml", tmp_path / "run", tmp_path / "state")


@pytest.mark.parametrize(
    "error",
    [KernelError("read", errno.EMFILE, "too many open files"), OSError(errno.EMFILE, "x"), RuntimeError("no thread")],
)
def test_a_down_that_fails_says_why_and_ends_the_daemon(
    places: Places, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(kernel: FakeKernel) -> None:
        def read(_: object) -> Any:
            raise error

        kernel.read = read  # type: ignore[assignment, method-assign] # no input is known that does it

    caplog.set_level(logging.INFO, "polywan")
    answer, _ = printed_by_down(places, broken)
    assert isinstance(answer, ControlError)
    assert answer.status == 500
    assert "the daemon ends: run `polywan down` again" in str(answer)
    assert "down.failed" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_memory_that_cannot_be_removed_is_told_after_all_else_was_removed(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(_: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store, "forget", refusing)
    answer, kernel = printed_by_down(places, lambda _: None)
    assert (kernel.nft, list(kernel.rules), list(kernel.routes)) == (None, [], [])
    assert answer.problems == (
        f"{places.state_dir / store.FILE} cannot be removed: read-only file system; remove it yourself",
    )


def test_a_running_daemon_restores_what_it_knows_though_its_file_is_lost(places: Places) -> None:
    def forgetful(kernel: FakeKernel) -> None:
        assert kernel.sysctls == {SETTING: "1"}
        (places.state_dir / store.FILE).write_text("{")

    answer, kernel = printed_by_down(places, forgetful)
    assert answer.unrestored == ()
    assert not (places.state_dir / store.FILE).exists()
    assert kernel.sysctls == {SETTING: "0"}


def test_settings_that_were_lost_once_are_named_by_a_later_down_too(tmp_path: Path) -> None:
    kernel = FakeKernel()
    (tmp_path / store.FILE).write_text("{")
    memory = recalled(kernel, tmp_path)
    assert memory == Memory(unsure=True)
    store.save(tmp_path, memory)
    assert store.lost(tmp_path)
    assert recalled(kernel, tmp_path).unsure


def test_a_first_start_has_lost_nothing_and_one_beside_rules_of_ours_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert recalled(FakeKernel(), tmp_path) == Memory()
    assert not caplog.text
    kernel = kernel_of(2)
    for plan in Engine(config(2), world(2)).plans():
        kernel.apply(plan.plan)
    assert recalled(kernel, tmp_path).unsure
    assert "memory.json is gone, but the kernel has rules of polywan" in caplog.text


def test_the_command_tells_a_failure_of_the_daemon_from_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> Any:
        raise ControlError("not everything could be removed: no space", 500)

    monkeypatch.setattr(Client, "ask", failing)
    monkeypatch.setattr(offline, "remove_without_daemon", None)
    done = CliRunner().invoke(group, ["down"], standalone_mode=False)
    assert isinstance(done.exception, ControlError)
    assert exit_code(done.exception) == 1
    assert str(done.exception) == "not everything could be removed: no space"


def test_a_daemon_that_does_not_answer_is_named_with_how_to_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> Any:
        raise ControlError("no daemon answers at /run/polywan/control.sock: timed out")

    def busy(*_: Path) -> Any:
        raise BusyError("another daemon (pid 7) runs")

    monkeypatch.setattr(Client, "ask", silent)
    monkeypatch.setattr(offline, "remove_without_daemon", busy)
    done = CliRunner().invoke(group, ["down"], standalone_mode=False)
    assert str(done.exception).splitlines() == [
        "no daemon answers at /run/polywan/control.sock: timed out",
        "another daemon (pid 7) runs",
        "End a daemon that does not answer with `kill PID`.",
    ]


def test_what_was_not_done_is_printed_and_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Removed(removed=3, failed=(), unrestored=(), problems=("memory.json cannot be removed",))
    monkeypatch.setattr(Client, "ask", lambda *_: report)
    done = CliRunner().invoke(verb.command, [])
    assert (done.exit_code, "memory.json cannot be removed" in done.output) == (1, True)


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    assert remove(FakeKernel(), tmp_path) == remove(FakeKernel(), tmp_path)
