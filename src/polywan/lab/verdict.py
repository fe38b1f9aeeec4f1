"""From what was measured to what was promised: pure functions over recorded connections and flows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from polywan.lab.traffic import Attempt
from polywan.lab.witness import Witness

NOTICED_SILENCE: Final = 3.0
"""Seconds after a silent loss from which on every new connection must succeed."""
_CLOCK_SLACK: Final = 0.02
"""Seconds by which this process may learn late that a handshake is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that was done to the network; moments are monotonic seconds.

    Attributes:
        kind: "carrier", "silence", "crash" or "reload".
        at: just before it was done.
        done: when it was done: for a fault, nothing passes from here on.
        until: when its time was over.
        dead: number of the uplink that was broken, None when none was.
        noticed: seconds until the daemon knew; None when it never did or there was nothing to know.
        returned: seconds from the repair until the uplink was in use again; None as above.
    """

    name: str
    kind: Literal["carrier", "silence", "crash", "reload"]
    at: float
    done: float
    until: float
    dead: int | None = None
    noticed: float | None = None
    returned: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a step cost; durations are seconds after it.

    Attributes:
        tried: new connections whose opening fell into its time.
        failed: those of them that failed.
        late: those of the failed that were started after the time in which silence must be noticed.
        last_failure: when the last of the failed ones was started.
        errors: how the failed ones failed, each kind once.
        stranded: long-lived flows that the dead uplink carried.
        hung: those of them that neither broke nor went on by another uplink.
        freed: when the last of the others did.
        disturbed: flows of healthy uplinks that moved or broke, in words.
    """

    step: Step
    tried: int
    failed: int
    late: int
    last_failure: float | None
    errors: tuple[str, ...]
    stranded: int
    hung: int
    freed: float | None
    disturbed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, whether it was held, and the numbers that show it."""

    text: str
    held: bool
    measured: str


def was_open(attempt: Attempt, step: Step) -> bool:
    """Tell whether the step broke it after its handshake was done: then it was no *new* connection."""
    if step.dead is None or attempt.connected is None:
        return False
    return attempt.connected <= step.done + _CLOCK_SLACK


def judge(step: Step, attempts: Iterable[Attempt], flows: Sequence[Witness]) -> Event:
    """Count what a step cost: connections being opened when it came, or started before its time was over."""
    touched = [a for a in attempts if a.ended >= step.at and a.started < step.until]
    new = [a for a in touched if a.ok or not was_open(a, step)]
    failed = [a for a in new if not a.ok]
    starts = [a.started - step.at for a in failed]
    stranded = [flow for flow in flows if step.dead is not None and flow.carried_by(step.at) == step.dead]
    freed = [moment - step.at for flow in stranded if (moment := flow.freed(step.at, step.until)) is not None]
    hurt = (flow.disturbed(step.at, step.until, step.dead) for flow in flows)
    return Event(
        step=step,
        tried=len(new),
        failed=len(failed),
        late=sum(start > NOTICED_SILENCE for start in starts),
        last_failure=max(starts, default=None),
        errors=tuple(sorted({a.error for a in failed})),
        stranded=len(stranded),
        hung=len(stranded) - len(freed),
        freed=max(freed, default=None),
        disturbed=tuple(filter(None, hurt)),
    )


def promises(events: Sequence[Event], deviations: Sequence[float], spoofed: int) -> tuple[Promise, ...]:
    """Hold what was measured against what polywan promises."""
    worst = max(deviations, default=0.0)
    hurt = [words for event in events for words in event.disturbed]
    return (
        Promise(
            "connections are shared exactly by weight (within one connection)",
            worst <= 1.0,
            f"worst: {worst:.2f} off",
        ),
        *(_cost(event) for event in events),
        *(_freed(event) for event in events if event.stranded),
        *(_return(event) for event in events if event.step.dead is not None),
        Promise(
            "no connection on a healthy uplink moved or broke",
            not hurt,
            "; ".join(hurt[:3]) or f"0 in {len(events)} events",
        ),
        Promise("no packet left with another provider's address", spoofed == 0, f"{spoofed} packets"),
    )


def _cost(event: Event) -> Promise:
    step, measured = event.step, f"{event.failed} of {event.tried} failed"
    if event.last_failure is not None:
        measured += f" ({', '.join(event.errors)}), the last one started {event.last_failure:.2f} s after"
    known = step.dead is None or step.noticed is not None
    if not known:
        measured += ", never noticed"
    if step.kind == "silence":
        text = f"{step.name}: whatever is opened {NOTICED_SILENCE:g} s later or more succeeds"
        return Promise(text, known and event.late == 0, measured)
    return Promise(f"{step.name}: every new connection succeeds", known and event.failed == 0, measured)


def _freed(event: Event) -> Promise:
    measured = f"{event.stranded - event.hung} of {event.stranded} freed"
    if event.freed is not None:
        measured += f", the last after {event.freed:.2f} s"
    return Promise(f"{event.step.name}: its own connections are freed, none hangs", event.hung == 0, measured)


def _return(event: Event) -> Promise:
    returned = event.step.returned
    measured = "never" if returned is None else f"after {returned:.1f} s"
    return Promise(f"{event.step.name}: the uplink comes back into use", returned is not None, measured)
