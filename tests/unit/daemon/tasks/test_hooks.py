"""Hooks: what they are told, in which order they run, and that nothing that they do holds up anything."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polywan import child
from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.child import Started
from polywan.core.resolved import resolve
from polywan.core.state.state import Known, State
from polywan.daemon.tasks import hooks as module
from polywan.daemon.tasks.hooks import HookRunner
from support.engine_world import config

NOTHING = dict.fromkeys(LinkEvent.__fields__)
USUAL = {
    "id": 1,
    "time": "2026-11-30T08:00:00.000+00:00",
    "uplink": "u1",
    "interface": "wan1",
    "event": "state",
    "state": "down",
    "previous_state": "up",
    "reason": "no carrier",
    "lasted_s": 61.9,
    "rx_bytes": 1000,
    "address": "192.0.2.2",
}


def entry(**values: Any) -> LinkEvent:
    return decode(LinkEvent, {**NOTHING, **USUAL, **values})


def state(**hooks: Any) -> State:
    file = config(3, hooks=hooks)
    return State(known=Known(config=resolve(file, {"u1": 1, "u2": 2, "u3": 3})))


def shell(text: str, *arguments: str) -> list[str]:
    return ["sh", "-c", text, "hook", *arguments]


Story = Callable[[HookRunner], Awaitable[None]]


def play(known: State, story: Story, timeout: float = 10.0) -> None:
    async def whole() -> None:
        runner = HookRunner(lambda: known)
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(timeout):
                await story(runner)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())


async def idle(runner: HookRunner) -> None:
    while runner.busy:
        await asyncio.sleep(0.002)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.INFO]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "polywan")


def test_a_hook_is_told_what_happened_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the daemon")

    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down"], ["u2", "u3"])
        await idle(runner)

    play(state(down=shell('exec env -0 > "$1"', str(tmp_path / "said"))), story)
    environment = dict(part.split("=", 1) for part in (tmp_path / "said").read_text().split("\0") if part)
    for added in ("PWD", "OLDPWD", "SHLVL", "_"):  # by the shell
        environment.pop(added, None)
    assert environment == {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "HOOK": "down",
        "TIME": "2026-11-30T08:00:00.000+00:00",
        "UPLINK": "u1",
        "INTERFACE": "wan1",
        "TABLE": "6001",
        "STATE": "down",
        "PREVIOUS_STATE": "up",
        "IPV4": "",
        "IPV6": "",
        "REASON": "no carrier",
        "ADDRESS": "192.0.2.2",
        "GATEWAY": "",
        "ADDRESS6": "",
        "GATEWAY6": "",
        "PREVIOUS_ADDRESS": "",
        "PREVIOUS_GATEWAY": "",
        "PREVIOUS_ADDRESS6": "",
        "PREVIOUS_GATEWAY6": "",
        "DURATION": "61",
        "BYTES_SENT": "",
        "BYTES_RECEIVED": "1000",
        "SERVING": "u2 u3",
    }


def test_texts_of_others_are_values_and_never_commands(tmp_path: Path) -> None:
    async def story(runner: HookRunner) -> None:
        runner.call(entry(reason="$(touch x) `id`; \0\n\x1b[2J 'q' \"d\""), ["down"], [])
        await idle(runner)

    play(state(down=shell('printf %s "$REASON$1" > "$2"', "$(id)", str(tmp_path / "said"))), story)
    assert (tmp_path / "said").read_text() == "$(touch x) `id`; \\x00\\x0a\\x1b[2J 'q' \"d\"$(id)"


def test_calls_of_one_uplink_follow_each_other_and_those_of_several_run_together(tmp_path: Path) -> None:
    # u2 and u3 wait for each other; u1 shows its order.
    meet = shell('mkdir "$1/$UPLINK"; until [ -d "$1/u2" ] && [ -d "$1/u3" ]; do sleep 0.01; done', str(tmp_path))
    note = shell('echo "$HOOK-$ADDRESS" >> "$1"; sleep 0.05; echo end >> "$1"', str(tmp_path / "order"))

    async def story(runner: HookRunner) -> None:
        for number in range(3):
            runner.call(entry(address=str(number)), ["up", "address"], [])
        runner.call(entry(uplink="u2"), ["down"], [])
        runner.call(entry(uplink="u3"), ["down"], [])
        await idle(runner)

    play(state(up=note, address=note, down=meet), story)
    lines = (tmp_path / "order").read_text().split()
    assert lines[::2] == ["up-0", "address-0", "up-1", "address-1", "up-2", "address-2"]
    assert lines[1::2] == ["end"] * 6


def test_what_is_about_all_uplinks_is_in_order_whichever_uplink_it_was(tmp_path: Path) -> None:
    note = shell('sleep "$DURATION"; echo "$HOOK" >> "$1"', str(tmp_path / "order"))

    async def story(runner: HookRunner) -> None:
        runner.call(entry(uplink="u1", lasted_s=1.0), ["all_down"], [])
        runner.call(entry(uplink="u2", lasted_s=0.0), ["any_up"], [])
        await idle(runner)

    play(state(all_down=note, any_up=note), story)
    assert (tmp_path / "order").read_text().split() == ["all_down", "any_up"]


def test_keys_that_are_not_in_the_file_call_nothing() -> None:
    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down", "address", "all_down"], [])
        assert not runner.busy

    play(state(up="true"), story)


def test_a_hook_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(runner: HookRunner) -> None:
        began = time.monotonic()
        runner.call(entry(), ["down"], [])
        await idle(runner)
        assert 0.9 < time.monotonic() - began < 3.0
        assert runner.troubles == ("hook down fails: sh did not end within 1 s and was killed",)

    play(state(down=shell('sleep 300 & echo $! > "$1"; wait', str(tmp_path / "pid")), timeout="1s"), story)
    assert said(caplog) == ["hook.failed: down of u1: sh did not end within 1 s and was killed"]
    assert ended(int((tmp_path / "pid").read_text()))


def ended(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/nonexistent/hook", "/nonexistent/hook cannot be run: no such file or directory"),
        ("/etc/passwd", "/etc/passwd cannot be run: permission denied"),
        ("/", "/ cannot be run: permission denied"),
        ("", '"" cannot be run: permission denied'),
        (["\udcff\n"], None),
        (["true", "x" * 4096], ""),
        ("false", "false: exit status 1"),
        (shell("kill -SEGV $$"), "sh: killed by SIGSEGV"),
        (shell("sleep 300 >/dev/null 2>&1 &"), "sh left programs running in its background, which were killed"),
        (shell("exec 1>&- 2>&-; exit 3"), "sh: exit status 3"),
    ],
)
def test_whatever_a_hook_is_costs_one_sentence(
    command: Any, problem: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(runner: HookRunner) -> None:
        for _ in range(3):
            runner.call(entry(), ["down"], [])
        await idle(runner)

    play(state(down=command), story)
    lines = said(caplog)
    if problem == "":
        assert lines == []
    else:
        # Three calls fail in the same way, which is one line.
        (line,) = lines
        assert line.isprintable()
        assert problem is None or line == f"hook.failed: down of u1: {problem}"


def test_a_program_that_floods_is_killed_and_its_words_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    longest = 0.0

    async def story(runner: HookRunner) -> None:
        nonlocal longest
        runner.call(entry(), ["down"], [])
        while runner.busy:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)

    play(state(down=["yes", "polywan" * 100]), story)
    lines = said(caplog)
    assert len(lines) == module.MOST_OUTPUT + 2
    assert all(len(line) < module.LONGEST_LINE + 50 for line in lines)
    assert lines[-2].startswith("hook.output: down of u1: ")
    assert lines[-2].endswith(" lines more")
    assert lines[-1] == "hook.failed: down of u1: yes wrote more than 1 MiB and was killed"
    assert longest < 0.1


def test_a_flood_of_empty_lines_is_no_work(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down"], [])
        await idle(runner)

    play(state(down=["yes", ""]), story)
    assert len(said(caplog)) == 2


def test_words_are_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down"], [])
        await idle(runner)

    play(state(down=shell(r"printf 'one\n\n  two \033[2J\nthree'; echo four >&2")), story)
    assert said(caplog) == [
        "hook.output: down of u1: one",
        "hook.output: down of u1: two \\x1b[2J",
        "hook.output: down of u1: threefour",
    ]


def test_a_hook_that_works_again_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down"], [])
        await idle(runner)
        (tmp_path / "flag").touch()
        runner.call(entry(), ["down"], [])
        await idle(runner)
        assert runner.troubles == ()

    play(state(down=["test", "-e", str(tmp_path / "flag")]), story)
    assert said(caplog) == [
        "hook.failed: down of u1: test: exit status 1",
        "hook.recovered: down of u1 ran without a fault",
    ]


def test_what_waits_behind_a_hook_has_a_bound_and_the_oldest_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = shell('echo "$ADDRESS" >> "$1"; [ "$ADDRESS" != 0 ] || sleep 0.5', str(tmp_path / "order"))

    async def story(runner: HookRunner) -> None:
        runner.call(entry(address="0"), ["down"], [])
        await asyncio.sleep(0.1)
        for number in range(1, 21):
            runner.call(entry(address=str(number)), ["down"], [])
        await idle(runner)

    play(state(down=note), story)
    assert (tmp_path / "order").read_text().split() == ["0", *map(str, range(5, 21))]
    assert [line.partition(":")[0] for line in said(caplog)] == ["hook.dropped"] * 4


def test_only_a_few_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = shell('echo x >> "$1/in"; sleep 0.2; echo x >> "$1/out"', str(tmp_path))

    async def story(runner: HookRunner) -> None:
        for number in range(20):
            runner.call(entry(uplink=f"n{number}"), ["down"], [])
        most = 0
        while runner.busy:
            await asyncio.sleep(0.02)
            counts = [len((tmp_path / n).read_text()) // 2 if (tmp_path / n).exists() else 0 for n in ("out", "in")]
            most = max(most, counts[1] - counts[0])
        assert most <= module.MOST_RUNNING

    play(state(down=note), story)
    assert len((tmp_path / "out").read_text().split()) == 20


def test_a_disk_that_hangs_while_a_hook_is_started_holds_up_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer, made = threading.Event(), []

    class Slow(Started):
        def __init__(self, command: Any, environment: Any) -> None:
            answer.wait()
            super().__init__(command, environment)
            made.append(self.process)

    monkeypatch.setattr(child, "Started", Slow)

    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down"], [])
        began = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 0.2
        await idle(runner)
        answer.set()
        while not made or made[0].poll() is None:
            await asyncio.sleep(0.01)

    play(state(down=["sleep", "300"], timeout="1s"), story)
    assert said(caplog) == ["hook.failed: down of u1: sleep did not start within 1 s"]
    assert made[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("stubborn", [False, True])
def test_hooks_are_ended_soon_when_the_daemon_ends(
    stubborn: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trap = "trap '' TERM; " if stubborn else ""
    hang = shell(trap + 'echo $$ > "$1"; while :; do sleep 0.1; done', str(tmp_path / "pid"))

    async def story(runner: HookRunner) -> None:
        runner.call(entry(), ["down"], [])
        runner.call(entry(), ["down"], [])
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)

    began = time.monotonic()
    play(state(down=hang), story)
    assert time.monotonic() - began < 3.0
    assert ended(int((tmp_path / "pid").read_text()))
    assert said(caplog)[0] == "hook.dropped: 1 call not made: the daemon ends"


def test_calls_from_before_it_runs_are_made_then(tmp_path: Path) -> None:
    known = state(up=shell('echo "$HOOK" > "$1"', str(tmp_path / "said")))

    async def whole() -> None:
        runner = HookRunner(lambda: known)
        runner.call(entry(), ["up"], [])
        task = asyncio.create_task(runner.run())
        while not (tmp_path / "said").exists():
            await asyncio.sleep(0.01)
        await idle(runner)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())
    assert (tmp_path / "said").read_text() == "up\n"


def test_a_hook_that_the_file_does_not_name_any_more_is_no_trouble() -> None:
    known = [state(down="false")]

    async def story() -> None:
        runner = HookRunner(lambda: known[0])
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        runner.call(entry(), ["down"], [])
        await idle(runner)
        assert [*runner.troubles] == ["hook down fails: false: exit status 1"]
        known[0] = state(down="true")
        assert [*runner.troubles] == []
        known[0] = state()
        assert [*runner.troubles] == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
