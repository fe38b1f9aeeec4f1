"""`polywan status --watch` goes on as the daemon says something, and `polywan top` needs a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from polywan.api import calls
from polywan.api.document import Document
from polywan.api.requests import Nothing
from polywan.api.views.stream import Change
from polywan.cli import group
from polywan.cli import status as status_verb
from polywan.client import Client
from polywan.core.errors import ControlError
from polywan.top.terminal import refusal
from support.documents import status, uplink
from support.screens import sample

BEFORE = status(uplink("fibre"), uplink("dsl", rx_bps=1000))
LOST = Change(
    time="2026-11-30T08:00:00+00:00", uplinks=(uplink("dsl", "down"),), removed=(), policies=None, generation=2,
    ready=True, drift=(), warnings=(), notes=(), apply_ms=None, apply_ops=0,
)  # fmt: skip
BUSY = sample([uplink("dsl", rx_bps=9_000_000)])


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """What the daemon sends before it ends."""
    events: list[Document] = [BEFORE, BUSY, LOST]

    def follow(_: Client, asked: object, __: Nothing) -> Iterator[Document]:
        assert asked is calls.LIVE
        yield from events

    monkeypatch.setattr(Client, "follow", follow)
    return events


@pytest.mark.usefixtures("stream")
def test_each_change_and_what_is_measured_are_shown_anew() -> None:
    done = CliRunner().invoke(status_verb.command, ["--watch"])
    shown = [line.split() for line in done.output.splitlines() if line.startswith("dsl ")]
    assert [(row[1], row[-4:-2]) for row in shown] == [
        ("up", ["1.0", "kb/s"]), ("up", ["9.0", "Mb/s"]), ("down", ["12.3", "Mb/s"]),
    ]  # fmt: skip
    assert isinstance(done.exception, ControlError)


@pytest.mark.usefixtures("stream")
def test_json_has_a_line_for_every_change_and_none_for_what_is_measured() -> None:
    done = CliRunner().invoke(status_verb.command, ["--watch", "--json", "dsl"])
    assert [json.loads(line)["state"] for line in done.output.splitlines()] == ["up", "down"]


@pytest.mark.usefixtures("stream")
def test_an_uplink_that_is_not_there_is_refused_at_once() -> None:
    assert CliRunner().invoke(status_verb.command, ["--watch", "lte"]).exit_code == 2


@pytest.mark.parametrize(
    ("environ", "terminal", "said"),
    [
        ({"TERM": "xterm"}, True, ""),
        ({"TERM": "dumb"}, True, "the terminal cannot be drawn on (TERM=dumb)"),
        ({}, True, "the terminal cannot be drawn on (TERM=)"),
        ({"TERM": "xterm"}, False, "input and output must be a terminal (with ssh: ssh -t)"),
    ],
)
def test_where_nothing_can_be_drawn_a_sentence_says_what_can_be_used(
    environ: dict[str, str], terminal: bool, said: str
) -> None:
    why = refusal(environ, terminal=terminal)
    assert why.startswith(said)
    assert why.endswith("; `polywan status --watch` needs none") is bool(said)


def test_top_without_a_terminal_is_a_mistake_of_usage() -> None:
    done = CliRunner().invoke(group, ["top"])
    assert (done.exit_code, "ssh -t" in done.output) == (2, True)
