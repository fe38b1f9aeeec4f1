"""The rules of a trial: what its supervisor does next, what failed, and who may confirm it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from polywan.core.trial.record import Record

SILENCE: Final = 15.0
"""Seconds after which a daemon that runs and does not answer has failed. One under load answers within a second, and a
reload may take some seconds."""

HOW_IT_ENDS: Final = "`polywan confirm` keeps it, `polywan rollback` ends it"
"""What people can do about a trial."""

WELL: Final = frozenset({"up", "degraded"})


class Place(StrEnum):
    """What the file's place holds."""

    OLD = "old"
    NEW = "new"
    OTHER = "other"


class Next(StrEnum):
    """What the supervisor does."""

    WATCH = "watch"
    COMPLETE = "complete"
    FORGET = "forget"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the supervisor has found.

    Attributes:
        boot: this boot.
        now: seconds since it, as of `Record.deadline`.
        place: what the file's place holds.
        running: the daemon of the record still runs.
        stopped: no daemon answers, and it was stopped on purpose, or is being.
        answered: seconds since that boot at which a daemon last answered.
        answers: one answers now.
        on_trial: id of the trial that it has; None for none.
    """

    boot: str
    now: float
    place: Place
    running: bool
    stopped: bool = False
    answered: float
    answers: bool
    on_trial: str | None


def following(record: Record, seen: Seen) -> tuple[Next, str]:
    """Return what comes next for a trial, and why.

    The rename that brings the new text into the file's place is the confirmation: before it the old configuration is
    in force at the next start of a daemon, after it the new one. So no order of crashes leaves anything in between.

    Args:
        record: what is on disk.
        seen: what was found.
    """
    if record.armed and seen.place is Place.NEW:
        return Next.COMPLETE, "the new text is in its place"
    if record.boot != seen.boot:
        return Next.ROLL_BACK, "the machine was restarted"
    if seen.stopped and not seen.answers:
        return Next.FORGET, "the daemon was stopped: it starts with the old configuration"
    if seen.now >= record.deadline:
        return Next.ROLL_BACK, f"it was not confirmed within {record.until - record.since:.0f} s"
    if seen.answers:
        if record.began and seen.on_trial != record.id:
            return Next.ROLL_BACK, "the daemon was restarted"
        return Next.WATCH, ""
    if not seen.running:
        return Next.ROLL_BACK, "the daemon died"
    if seen.now - seen.answered >= SILENCE:
        return Next.ROLL_BACK, f"the daemon has not answered for {SILENCE:g} s"
    return Next.WATCH, ""


def lost(before: Sequence[str], states: Mapping[str, str], reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return what was up and is not, for people; what is not in the new file, or is disabled there, is as asked for.

    Args:
        before: uplinks that were up or degraded.
        states: those of the new configuration, by name.
        reasons: why each is in that state.
    """
    found = [
        f"{name} was up and is {states[name]}: {reasons[name]}"
        for name in before
        if name in states and states[name] not in {*WELL, "disabled", "draining", "drained"}
    ]
    if before and not found and not WELL.intersection(states.values()):
        found.append("no uplink is up any more")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmer:
    """Whoever wants to confirm, as far as it can be found out.

    Attributes:
        user: name, as of `Record.user`.
        remote: the command may come from an ssh session: it does, or from a window of a program that outlives one.
        server_start: when the ssh server's process of that session started, seconds since boot; None when no such
            process is among its ancestors.
    """

    user: str
    remote: bool
    server_start: float | None


def refusal(record: Record, by: Confirmer, *, force: bool, here: bool) -> str:
    """Return why somebody may not confirm a trial; empty when he may.

    Args:
        record: the trial.
        by: who asks.
        force: another user may confirm it.
        here: the connection need not be newer than the change.
    """
    if not record.began:
        return "the new configuration is not in force yet: try again in a moment"
    if by.user != record.user and not force:
        return f"{record.user} tries this, and you are {by.user}: {record.user} confirms it, or you with --force"
    if not by.remote or here:
        return ""
    cure = (
        "open a second ssh session to this box and run `polywan confirm` there, or use --here if you know that "
        "a new one works"
    )
    if by.server_start is None:
        return (
            f"this terminal does not tell which ssh session it is in, so it does not prove that a new one works: {cure}"
        )
    if by.server_start < record.began:
        return f"this ssh session is older than the change, so it does not prove that a new one works: {cure}"
    return ""
