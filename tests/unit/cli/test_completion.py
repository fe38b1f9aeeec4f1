"""What a shell is told may follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.status import Status
from polywan.cli import VERBS, group
from polywan.client import Client
from support.documents import status, uplink


def completed(*words: str, incomplete: str = "") -> list[str]:
    found = BashComplete(group, {}, "polywan", "_POLYWAN_COMPLETE").get_completions(list(words), incomplete)
    return [item.value for item in found]


def test_every_verb_is_completed() -> None:
    assert completed() == list(VERBS)
    assert completed(incomplete="st") == ["status"]


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("uplink", "drain"),
        ("exec", "--via"),
        ("flows", "--uplink"),
        ("events", "--uplink"),
        ("report", "--uplink"),
    ],
)
def test_names_of_uplinks_are_those_that_the_daemon_knows(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def answer(_: Client, call: object, __: Nothing) -> Status:
        asked.append(call)
        return status(uplink("fibre"), uplink("lte"), uplink("lan5"))

    monkeypatch.setattr(Client, "ask", answer)
    assert completed(*words, incomplete="l") == ["lte", "lan5"]
    assert asked == [calls.STATUS]


def test_without_a_daemon_no_name_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYWAN_RUNTIME_DIR", str(tmp_path))
    assert completed("uplink", "drain") == []
