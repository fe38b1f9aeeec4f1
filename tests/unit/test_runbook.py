"""The runbook explains every event of the log and no other, and its commands make sense to a shell."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from polywan.core.policy.operator import Verb
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.quota.ledger import Topic
from polywan.core.state.effects import Level
from polywan.core.status.log_names import LOG_EVENTS
from support.runbook import MACHINE, RUNBOOK, SHELL, Section, commands, runbook

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))

_LINE = re.compile(r"([a-z]+(?:\.[a-z_]+)?): ")
_ENDINGS = {
    "seen.state": [str(state) for state in UplinkState],
    "event.verb": [str(verb) for verb in Verb],
    "n.topic": [str(topic) for topic in Topic],
}
"""What is filled in behind `uplink.` and `quota.`, by the expression."""

_FORWARDED = {"%s: %s"}
"""Lines whose event is somebody else's: those of the engine, and those of libraries."""


def logged_by_call(call: ast.Call) -> Iterator[tuple[str, Level | None]]:
    """Yield the event of a call such as `log.info("ready: …")`, with its level; None where that is computed."""
    assert isinstance(call.func, ast.Attribute)
    line = ast.literal_eval(call.args[1 if call.func.attr == "log" else 0])
    if line in _FORWARDED:
        return
    name = _LINE.match(line)
    assert name is not None, f"no event: {line}"
    yield name[1], None if call.func.attr == "log" else Level(call.func.attr)


def logged_by_effect(call: ast.Call) -> Iterator[tuple[str, Level | None]]:
    """Yield the events of a `Log(level, event, text)`."""
    level, event = call.args[:2]
    known = Level[level.attr] if isinstance(level, ast.Attribute) else None
    if isinstance(event, ast.JoinedStr):
        prefix, filled = event.values
        assert isinstance(filled, ast.FormattedValue)
        for ending in _ENDINGS[ast.unparse(filled.value)]:
            yield f"{ast.literal_eval(prefix)!s}{ending}", known
    else:
        yield str(ast.literal_eval(event)), known


def logged() -> Iterator[tuple[str, Level | None]]:
    """Yield every event that the code logs, with its level where that is written there."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match call:
                case ast.Call(func=ast.Name(id="Log")):
                    yield from logged_by_effect(call)
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr="info" | "warning" | "error" | "log")):
                    yield from logged_by_call(call)


def test_everything_that_is_logged_has_a_name_and_a_level_that_are_listed() -> None:
    odd = {
        (name, level)
        for name, level in logged()
        if name not in LOG_EVENTS or (level is not None and level not in LOG_EVENTS[name])
    }
    assert odd == set()


def test_every_name_that_is_listed_is_logged_at_each_of_its_levels() -> None:
    levels: dict[str, set[Level | None]] = {}
    for name, level in logged():
        levels.setdefault(name, set()).add(level)
    assert levels.keys() == LOG_EVENTS.keys()
    for name, found in levels.items():
        assert None in found or found == set(LOG_EVENTS[name]), name


def test_the_runbook_explains_every_event_with_its_level_and_no_other() -> None:
    explained = [(name, levels) for section in runbook() for name, levels in section.events.items()]
    assert sorted(explained) == sorted((name, tuple(map(str, levels))) for name, levels in LOG_EVENTS.items())


@pytest.mark.parametrize(
    "section",
    [s for s in runbook() if any(level in ("warning", "error") for levels in s.events.values() for level in levels)],
    ids=lambda section: section.title,
)
def test_what_needs_people_says_what_it_means_what_to_look_at_and_what_to_do(section: Section) -> None:
    assert section.text.startswith("Means: ")
    assert section.of(SHELL)
    assert re.search(r"^(Do: |\| reason \| do \|)", section.text, re.MULTILINE)


def blocks(kind: str) -> list[str]:
    return [block for section in runbook() for block in section.of(kind)]


@pytest.mark.parametrize("block", [*blocks(SHELL), *blocks(MACHINE)])
def test_a_shell_can_read_every_block(block: str) -> None:
    done = subprocess.run(["sh", "-n"], input=block, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_what_only_a_booted_machine_can_run_touches_our_unit_and_no_other() -> None:
    for line in "".join(blocks(MACHINE)).splitlines():
        words = shlex.split(line)
        match words[0]:
            case "systemctl":
                verb, *rest = words[1:]
                assert verb in ("start", "stop", "restart", "status", "enable")
                assert [word for word in rest if word not in ("--no-pager", "--now")] == ["polywan"]
            case _:
                assert words[:3] == ["journalctl", "--unit", "polywan"]
                assert "--no-pager" in words


def test_no_other_kind_of_block_has_commands() -> None:
    kinds = {block.kind for section in runbook() for block in section.blocks}
    assert kinds == {SHELL, MACHINE, ""}


PROGRAMS = {command.split()[0] for block in blocks(SHELL) for command in commands(block)}


def test_a_command_in_a_sentence_is_also_in_a_block_where_a_test_types_it() -> None:
    text = re.sub(r"^```.*?^```$", "", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    typed = "".join(blocks(SHELL))
    mentioned = {code for code in re.findall(r"`([^`\n]+)`", text) if code.split()[0] in PROGRAMS and " " in code}
    assert {code for code in mentioned if code not in typed} == set()


def anchor(heading: str) -> str:
    """Return what a forge makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_link_of_the_runbook_and_to_it_leads_somewhere() -> None:
    pages = [RUNBOOK, ROOT / "README.md", *(ROOT / "docs/guide").glob("*.md"), ROOT / "docs/design/style.md"]
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, name = target.partition("#")
            aim = (page.parent / path).resolve() if path else page
            if target.startswith("http") or (page != RUNBOOK and aim != RUNBOOK):
                continue
            assert aim.exists(), f"{page.name}: {target}"
            if name:
                text = aim.read_text(encoding="utf-8")
                assert name in map(anchor, re.findall(r"^#+ (.+)$", text, re.MULTILINE)), f"{page.name}: {target}"
