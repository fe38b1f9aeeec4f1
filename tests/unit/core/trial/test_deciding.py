"""What the supervisor of a trial does next, what failed, and who may confirm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polywan.core.trial.deciding import SILENCE, Confirmer, Next, Place, Seen, following, lost, refusal
from polywan.core.trial.record import Daemon, Process, Record

RECORD = Record(
    id="a1",
    user="alice",
    since=1_000_000.0,
    until=1_000_090.0,
    boot="b",
    began=100.0,
    deadline=190.0,
    runtime_dir="/run/polywan",
    name="polywan.toml",
    text="new",
    old="digest",
    in_force="digest of all",
    edited=False,
    armed=True,
    up=("fibre", "dsl"),
    daemon=Daemon(process=Process(pid=1, start=1), argv=("polywan", "run"), cwd="/", environment={}, unit=""),
    supervisor=Process(pid=2, start=2),
)
WELL = Seen(boot="b", now=150.0, place=Place.OLD, running=True, answered=150.0, answers=True, on_trial="a1")
SILENT = replace(WELL, answers=False, on_trial=None)


@pytest.mark.parametrize(
    ("record", "seen", "step", "why"),
    [
        (RECORD, WELL, Next.WATCH, ""),
        (RECORD, replace(WELL, now=190.0), Next.ROLL_BACK, "it was not confirmed within 90 s"),
        (RECORD, replace(WELL, place=Place.NEW, now=500.0), Next.COMPLETE, "the new text is in its place"),
        (RECORD, replace(WELL, place=Place.OTHER), Next.WATCH, ""),
        (RECORD, replace(WELL, boot="c", now=5.0), Next.ROLL_BACK, "the machine was restarted"),
        (RECORD, replace(WELL, on_trial=None), Next.ROLL_BACK, "the daemon was restarted"),
        (RECORD, replace(WELL, on_trial="z9"), Next.ROLL_BACK, "the daemon was restarted"),
        (replace(RECORD, began=0.0), replace(WELL, on_trial=None), Next.WATCH, ""),
        (RECORD, SILENT, Next.WATCH, ""),
        (
            RECORD,
            replace(SILENT, running=False, stopped=True, now=500.0),
            Next.FORGET,
            "the daemon was stopped: it starts with the old configuration",
        ),
        # One of another unit was stopped, and a daemon answers nevertheless.
        (RECORD, replace(WELL, running=False, stopped=True), Next.WATCH, ""),
        (RECORD, replace(SILENT, running=False), Next.ROLL_BACK, "the daemon died"),
        (RECORD, replace(SILENT, answered=150.0 - SILENCE), Next.ROLL_BACK, "the daemon has not answered for 15 s"),
    ],
)
def test_the_supervisor_goes_on_or_ends_the_trial(record: Record, seen: Seen, step: Next, why: str) -> None:
    assert following(record, seen) == (step, why)


REASONS = {"fibre": "no carrier", "dsl": "3 rounds without an answer"}


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ({"fibre": "up", "dsl": "degraded"}, ()),
        ({"fibre": "up"}, ()),
        ({"fibre": "up", "dsl": "disabled"}, ()),
        ({"fibre": "up", "dsl": "down"}, ("dsl was up and is down: 3 rounds without an answer",)),
        ({"lte": "down"}, ("no uplink is up any more",)),
    ],
)
def test_what_was_up_and_is_not_is_told_unless_it_was_asked_for(states: dict[str, str], found: tuple[str, ...]) -> None:
    assert lost(("fibre", "dsl"), states, REASONS) == found


def test_where_nothing_was_up_nothing_is_lost() -> None:
    assert lost((), {"fibre": "down"}, REASONS) == ()


@pytest.mark.parametrize(
    ("by", "flags", "said"),
    [
        (Confirmer(user="alice", remote=False, server_start=None), "", ""),
        (Confirmer(user="alice", remote=True, server_start=120.0), "", ""),
        (Confirmer(user="alice", remote=True, server_start=90.0), "", "older than the change"),
        (Confirmer(user="alice", remote=True, server_start=90.0), "here", ""),
        (Confirmer(user="alice", remote=True, server_start=None), "", "does not tell which ssh session"),
        (Confirmer(user="bob", remote=False, server_start=None), "", "alice tries this, and you are bob"),
        (Confirmer(user="bob", remote=False, server_start=None), "force", ""),
        (Confirmer(user="bob", remote=True, server_start=90.0), "force", "older than the change"),
    ],
)
def test_a_connection_that_is_newer_than_the_change_confirms_it(by: Confirmer, flags: str, said: str) -> None:
    found = refusal(RECORD, by, force=flags == "force", here=flags == "here")
    assert said in found
    assert bool(said) is bool(found)


def test_what_is_not_in_force_yet_cannot_be_confirmed() -> None:
    by = Confirmer(user="alice", remote=False, server_start=None)
    assert "not in force yet" in refusal(replace(RECORD, began=0.0), by, force=False, here=False)
