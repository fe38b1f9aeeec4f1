"""Lines of the log that logcheck may keep to itself are those that only inform; everything else reaches a person."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from polywan.core.engine.log_events import WANTED_STATES
from polywan.core.policy.operator import Verb
from polywan.core.policy.uplink_state import UplinkState

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/debian/polywan.logcheck.ignore.server"
STAMPS = ("Nov 30 08:01:02", "2026-11-30T08:01:02.123456+00:00", "2026-11-30T08:01:02+01:00")
CONVERSIONS = {"s": "some words", "d": "3", "f": "1.5"}
COMPUTED = {
    "uplink.{seen.state}": [f"uplink.{state}" for state in WANTED_STATES],
    "uplink.{event.verb}": [f"uplink.{verb}" for verb in Verb],
    "quota.{n.topic}": ["quota.within", "quota.reading", "quota.bought"],
}
"""Events whose names are put together, and what they may be where they only inform."""


def calls() -> Iterator[ast.Call]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


def lines() -> Iterator[tuple[str, str]]:
    """Yield level and line for each place in the source that logs."""
    for call in calls():
        match call.func:
            case ast.Name("Log"):
                level, event = ast.unparse(call.args[0]).removeprefix("Level."), call.args[1]
                if isinstance(event, ast.Constant) and isinstance(event.value, str):
                    yield level, f"{event.value}: some words"
            case ast.Attribute(ast.Name("log"), "info" | "warning" | "error" as level):
                if isinstance(call.args[0], ast.Constant):
                    yield level.upper(), filled(str(call.args[0].value))
    for names in COMPUTED.values():
        yield from (("INFO", f"{name}: some words") for name in names)


def filled(template: str) -> str:
    """Return a line as it is logged; of several lines the first one."""
    line = re.sub(r"%[.0-9]*([sdf])", lambda found: CONVERSIONS[found[1]], template).splitlines()[0]
    return line.replace("ready: some words", "ready: 2 uplinks")


def ignored(text: str) -> bool:
    """Tell whether logcheck drops a line, as grep(1) decides it; systems write the date in different ways."""
    written = "".join(f"{stamp} box polywan[812]: {text}\n" for stamp in STAMPS)
    done = subprocess.run(["grep", "-cEf", str(RULES)], input=written, capture_output=True, text=True, check=False)
    assert done.stdout.strip() in {"0", str(len(STAMPS))}
    return done.stdout.strip() != "0"


INFORMING = sorted({text for level, text in lines() if level == "INFO"})
ALARMING = sorted({text for level, text in lines() if level in {"WARNING", "ERROR"}})


@pytest.mark.parametrize(
    "text", [*INFORMING, "apply.done: applied 1 operation in 0.8 ms", "uplink.degraded: dsl is busy: 900 ms"]
)
def test_what_only_informs_is_kept_from_people(text: str) -> None:
    assert ignored(text)


@pytest.mark.parametrize(
    "text", [*ALARMING, *(f"uplink.{s}: dsl is {s}: no carrier" for s in UplinkState if s not in WANTED_STATES)]
)
def test_what_is_a_warning_or_an_error_reaches_people(text: str) -> None:
    assert not ignored(text)


def test_lines_of_other_programs_are_not_touched() -> None:
    done = subprocess.run(
        ["grep", "-cEf", str(RULES)], input=f"{STAMPS[0]} box sshd[1]: uplink.up: x\n", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "0"
    assert len(INFORMING) > 25
    assert len(ALARMING) > 25


def test_every_event_whose_name_is_put_together_is_known_here() -> None:
    found = {
        ast.unparse(call.args[1]).strip("f'\"")
        for call in calls()
        if isinstance(call.func, ast.Name) and call.func.id == "Log" and isinstance(call.args[1], ast.JoinedStr)
    }
    assert found == COMPUTED.keys()
