"""Hold a recorded run against the invariants of docs/design/chaos.md: pure, so that it is tested on made-up runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from chaos.expected import BLINK, Calendar, Fault, make_calendar
from chaos.history import BEAT, Deed, Flow, History, Span, any_meets, merged, outside
from chaos.plan import Kind
from polywan.lab.traffic import Attempt
from polywan.lab.witness import Move

MEMORY: Final = 16.0
"""MiB by which an old daemon may be larger than a young one: what a burst of reloads needed once stays taken."""
DESCRIPTORS: Final = 3
"""Descriptors that an old daemon may have more than a young one."""
THREADS: Final = 6
"""The same of threads: those that block for others are kept for the next time."""

_BEFORE: Final = 5
_RECENT: Final = 20.0
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept.

    Attributes:
        invariant: its name in docs/design/chaos.md.
        at: when, in seconds after the beginning of the run.
        subject: the flow, uplink or process that it happened to.
        before: the last things that were done before it.
    """

    invariant: str
    at: float
    subject: str
    text: str
    before: tuple[str, ...]

    def __str__(self) -> str:
        done = "; ".join(self.before) or "nothing yet"
        return f"{self.invariant} at {self.at:.2f} s, {self.subject}: {self.text}\n    before it: {done}"


def check(history: History) -> list[Violation]:
    """Return every violation, in order of time."""
    judge = _Judge(history, make_calendar(history))
    found = [
        *judge.flows_stay(),
        *judge.flows_are_freed(),
        *judge.sources_are_right(),
        *judge.connections_succeed(),
        *judge.inbound_is_answered(),
        *judge.repairs_are_made(),
        *judge.returns_are_held(),
        *judge.daemon_lives(),
        *judge.marks_stay(),
        *judge.all_is_well_in_the_end(),
    ]
    return sorted(found, key=lambda violation: violation.at)


class _Judge:
    """One method for each promise."""

    def __init__(self, history: History, calendar: Calendar) -> None:
        self.history, self.calendar, self.rules = history, calendar, history.rules
        self.unexpected = merged([*calendar.unsettled, *calendar.nobody])

    def _say(self, invariant: str, at: float, subject: str, text: str) -> Violation:
        recent = [d for d in self.history.deeds if at - _RECENT <= d.begun <= at]
        before = tuple(f"{d} ({at - d.begun:.2f} s)" for d in recent[-_BEFORE:])
        return Violation(invariant, at - self.history.begun, subject, text, before)

    def _excused(self, uplink: int) -> list[Span]:
        """When nothing is asked of a flow on that uplink."""
        return merged(
            [
                *self.calendar.broken[uplink],
                *self.calendar.open,
                *self.calendar.forgotten,
                *self.history.stalls,
            ]
        )

    def _judged(self, flow: Flow) -> Iterator[tuple[int, Span]]:
        """Yield each uplink of a flow and the time until the flow cannot be judged any more.

        Whoever flushes connection tracking, or takes address translation away, ends flows in ways that nobody can
        mend; they are left alone from then on.
        """
        ends = [s.begin for s in (*self.calendar.forgotten, *self.calendar.open) if s.end > flow.born]
        end = min(ends, default=self.history.ended)
        for uplink, stage in flow.stages(self.history.ended):
            if uplink in self.calendar.broken and stage.begin < end:
                yield uplink, Span(stage.begin, min(stage.end, end))

    def flows_stay(self) -> Iterator[Violation]:
        """I1: an established flow of a healthy uplink neither moves, nor breaks, nor hangs."""
        for flow in self.history.flows:
            for uplink, stage in self._judged(flow):
                excused = self._excused(uplink)
                moved = next((m for m in flow.moves if m.at == stage.end), None)
                if moved is not None and not self._may_move(flow, moved, excused):
                    text = f"moved from isp{moved.before} to isp{moved.after} although isp{uplink} was well"
                    yield self._say("I1", moved.at, flow.name, text)
                late = any(g.end == stage.end and self._kept(g, uplink, excused) for g in flow.gaps)
                if flow.broken == stage.end and not late and not any_meets(excused, stage.end, stage.end):
                    yield self._say("I1", stage.end, flow.name, f"broke ({flow.error}) although isp{uplink} was well")
                yield from self._hung(flow, uplink, stage, excused)

    def _may_move(self, flow: Flow, moved: Move, excused: list[Span]) -> bool:
        """It was moved between its last answer and this one; its new uplink answers, unless that could not either.

        What waited on a line that was full, before that broke, says nothing of when it was moved.
        """
        since = max((g.begin for g in flow.gaps if g.begin < moved.at <= g.end + BLINK), default=moved.at)
        there = (*self.calendar.broken.get(moved.after, ()), *self.calendar.slow.get(moved.after, ()))
        full = self.calendar.slow.get(moved.before, ())
        silent = outside(Span(since, moved.at), [*excused, *self._homeless(flow), *there, *full])
        return any_meets(excused, since, moved.at) and silent <= self.rules.patience

    def _homeless(self, flow: Flow) -> list[Span]:
        """When what is bound to the first uplink's address has none: a link that is set down takes it away.

        On a trunk a cable is cut by just that (`Lab.cut`).
        """
        down = (Kind.LINK_DOWN, Kind.CUT) if self.history.plan.trunk else (Kind.LINK_DOWN,)
        lost = (f for f in self.calendar.faults if f.uplink == 1 and f.kind in down)
        return [Span(f.begun - BLINK, f.mended + self.rules.repair) for f in lost] if flow.role == "tunnel" else []

    def _unseen(self, gap: Span, excused: list[Span]) -> bool:
        """True when a flow was lost for good reason while no daemon was there to free it: it waits, and breaks late."""
        return any_meets(excused, gap.begin, gap.begin) and not self._alive(gap.begin, gap.begin + self.rules.free)

    def _kept(self, gap: Span, uplink: int, excused: list[Span]) -> bool:
        """True when a flow was lost for good reason while nobody could free it, or no other uplink was well.

        It waits, and may break at its next try: with a device that is down the kernel forgets what was translated
        there, and what comes then is a connection of whatever uplink was chosen without a healthy one.
        """
        tried = Span(gap.begin, gap.begin + BEAT)
        alone = not self._somebody(uplink, tried.end, tried.end + self.rules.free)
        return self._unseen(gap, excused) or (any_meets(excused, tried.begin, tried.end) and alone)

    def _hung(self, flow: Flow, uplink: int, stage: Span, excused: list[Span]) -> Iterator[Violation]:
        """A sender that met a fault waits as long again before it repeats (RFC 6298), so that is excused as well."""
        known = [*excused, *self.calendar.torn, *self.calendar.slow[uplink]]
        longer = [Span(s.begin, s.end + s.length + self.rules.patience) for s in known]
        longer += self._homeless(flow)
        for gap in (g for g in flow.gaps if not self._unseen(g, excused)):
            seen = Span(max(gap.begin, stage.begin), min(gap.end, stage.end))
            if seen.length > self.rules.hang and outside(seen, longer) > self.rules.hang:
                text = f"no answer for {seen.length:.1f} s although isp{uplink} was well"
                yield self._say("I1", seen.begin, flow.name, text)

    def flows_are_freed(self) -> Iterator[Violation]:
        """F: while another uplink is well, a flow of a lost one is free to go on soon after the verdict.

        So is one whose uplink was given another address, when nothing else happened to that.
        """
        for fault in (*self.calendar.faults, *self.calendar.exchanged):
            if fault.kind is Kind.ECHO_LOST:
                continue
            # A sender that waits doubles its wait, so it may try next only as late again.
            limit = fault.known + self.rules.free + (fault.known - fault.begun)
            if (
                limit >= fault.mended
                or not self._somebody(fault.uplink, fault.begun, limit)
                or not self._alive(fault.known, limit)
                or (fault in self.calendar.exchanged and self._otherwise(fault, limit))
            ):
                continue
            for flow in self.history.flows:
                # What is bound to the address of a lost uplink has nowhere to go.
                if flow.role != "tunnel" and self._stuck(flow, fault.uplink, fault.begun, limit):
                    what = "given another address" if fault in self.calendar.exchanged else "lost"
                    text = f"still waits {limit - fault.begun:.1f} s after isp{fault.uplink} was {what}"
                    yield self._say("F", limit, flow.name, text)

    def _otherwise(self, exchange: Fault, limit: float) -> bool:
        """True when the daemon was not there to hear of the exchange, or the uplink was broken as well."""
        faults = (f for f in self.calendar.faults if f.uplink == exchange.uplink)
        broken = any(f.begun <= limit and exchange.begun <= f.mended + self.rules.back for f in faults)
        return broken or not self._alive(exchange.begun, limit)

    def _stuck(self, flow: Flow, uplink: int, begun: float, limit: float) -> bool:
        on = any(u == uplink and s.begin < begun - 0.5 and s.end > limit for u, s in self._judged(flow))
        waited = any(gap.begin < begun - self.rules.patience and gap.end > begun for gap in flow.gaps)
        if not on or waited or not any(gap.begin <= begun + 1.0 and gap.end > limit for gap in flow.gaps):
            return False
        silent = max(gap.end for gap in flow.gaps if gap.begin <= begun + 1.0 and gap.end > limit)
        if flow.protocol == "udp" and any(
            outside(Span(begun, limit), spans) <= self.rules.patience
            for number, spans in self.calendar.slow.items()
            if number != uplink and any_meets(self.calendar.broken[number], begun, silent)
        ):
            # It may have chosen a line that was full, and that died before an answer came through.
            return False
        # Free it was, and chose a line that is full: what it sends waits there, and no longer than that is full.
        after = next(((u, s.begin) for u, s in self._judged(flow) if u != uplink and s.begin > begun), None)
        return after is None or outside(Span(begun, after[1]), self.calendar.slow[after[0]]) > limit - begun

    def _somebody(self, lost: int, begin: float, end: float) -> bool:
        others = ([*spans, *self.calendar.slow[n]] for n, spans in self.calendar.broken.items() if n != lost)
        return any(not any_meets(spans, begin, end) for spans in others)

    def _alive(self, begin: float, end: float) -> bool:
        return any(
            life.ready is not None and life.ready <= begin and (life.ended is None or life.ended >= end)
            for life in self.history.lives
        )

    def sources_are_right(self) -> Iterator[Violation]:
        """I2 and I3: no foreign source leaves; a class that only one uplink may carry leaves by no other."""
        for before, after in pairwise(self.history.samples):
            # Packets that were under way when the rule set went are counted a moment later.
            if any_meets(self.calendar.open, before.at - 0.5, after.at):
                continue
            for number, count in _grown(before.spoofed, after.spoofed):
                new = after.foreign.get(number, frozenset()) - before.foreign.get(number, frozenset())
                text = f"{count} packets with a foreign source within the last second"
                yield self._say("I2", after.at, f"isp{number}", "; ".join([text, *sorted(new)[:_SHOWN]]))
            for number, count in _grown(before.forbidden, after.forbidden):
                text = f"{count} packets of the class kept in within the last second"
                yield self._say("I3", after.at, f"isp{number}", text)

    def connections_succeed(self) -> Iterator[Violation]:
        """I7, I8: a new connection succeeds while somebody is well and the daemon had its time to notice."""
        for attempt in self.history.attempts:
            if self._late(attempt, self.calendar.slow):
                continue
            if not attempt.ok and not any_meets(self.unexpected, *self._tried(attempt, self.calendar.slow)):
                text = f"failed ({attempt.error}) after {attempt.ended - attempt.started:.2f} s"
                yield self._say("I7", attempt.started, f"new tcp{attempt.family:d}", text)

    def _late(self, attempt: Attempt, slow: Iterable[int]) -> bool:
        """True when it ran out of time while one of these was slow; a refusal is no matter of a queue."""
        spans = (span for uplink in slow for span in self.calendar.slow[uplink])
        return attempt.error == "timeout" and any_meets(spans, attempt.started, attempt.ended)

    def _tried(self, attempt: Attempt, slow: Iterable[int]) -> tuple[float, float]:
        """The time in which everything had to be well: a timeout says nothing about its later part.

        What a full line has kept waiting may be lost with that line later.
        """
        spans = (span for uplink in slow for span in self.calendar.slow[uplink])
        if any_meets(spans, attempt.started, attempt.ended):
            return attempt.started, attempt.ended
        return attempt.started, min(attempt.ended, attempt.started + self.rules.patience)

    def inbound_is_answered(self) -> Iterator[Violation]:
        """I4: who comes in by a healthy uplink is answered by it."""
        for inbound in self.history.inbound:
            attempt, spans = inbound.attempt, self.calendar.broken[inbound.uplink]
            if self._late(attempt, [inbound.uplink]):
                continue
            trouble = merged([*self.calendar.unsettled, *spans])
            if not attempt.ok and not any_meets(trouble, *self._tried(attempt, [inbound.uplink])):
                name = f"inbound tcp{attempt.family:d} by isp{inbound.uplink}"
                yield self._say("I4", attempt.started, name, f"failed ({attempt.error})")

    def repairs_are_made(self) -> Iterator[Violation]:
        """I6: what others take away is back in time."""
        for repair in self.history.repairs:
            done = repair.deed.done
            killed = any(
                life.ended is not None and done <= life.ended <= done + self.rules.repair for life in self.history.lives
            )
            if killed or not self._alive(done, done + self.rules.repair) or self._dark(repair.deed):
                continue
            if repair.back is None or repair.back - done > self.rules.repair:
                took = "never" if repair.back is None else f"after {repair.back - done:.2f} s"
                yield self._say("I6", done, str(repair.deed), f"was put right {took}")

    def _dark(self, flushed: Deed) -> bool:
        """True when routes were taken away whose link was out meanwhile: the kernel does not take all of them back."""
        return flushed.action.kind is Kind.FLUSH_ROUTES and any(
            fault.uplink == flushed.action.uplink
            and fault.kind in (Kind.CUT, Kind.LINK_DOWN)
            and fault.begun <= flushed.done + self.rules.repair
            and flushed.begun <= fault.mended
            for fault in self.calendar.faults
        )

    def _carried(self, fault: Fault) -> bool:
        """True when some flow was on the uplink while the fault lasted."""
        stages = (stage for flow in self.history.flows for stage in flow.stages(self.history.ended))
        return any(u == fault.uplink and s.begin < fault.mended and s.end > fault.known for u, s in stages)

    def _by_main(self, attempt: Attempt, uplink: int) -> bool:
        """True when it may have followed main's default: that of the first uplink, or of the first that is not out."""
        lower = [self.calendar.broken[number] for number in range(1, uplink)]
        began, ended = attempt.started, attempt.ended
        return any_meets(self.calendar.chosen, began, ended) and all(any_meets(s, began, ended) for s in lower)

    def returns_are_held(self) -> Iterator[Violation]:
        """I7: an uplink that was given up is not used again before its hold-down is over.

        One that only loses echo requests carries traffic, and is busy as long as that is seen.
        """
        for fault in self.calendar.faults:
            early = Span(fault.known, fault.mended + self.rules.hold)
            if (
                (fault.kind is Kind.ECHO_LOST and self._carried(fault))
                or fault.known > fault.mended
                or not self._alive(fault.begun, early.end)
                or not self._somebody(fault.uplink, fault.begun, early.end)
            ):
                continue
            # The last SYN is what chose: earlier ones may have gone by another uplink, which died meanwhile.
            used = (
                a.connected
                for a in self.history.attempts
                if a.ok and a.uplink == fault.uplink and not self._by_main(a, fault.uplink)
            )
            if (first := next((at for at in used if at is not None and at in early), None)) is not None:
                text = f"was used {first - fault.mended:+.2f} s after it was mended"
                yield self._say("I7", first, f"isp{fault.uplink}", text)

    def daemon_lives(self) -> Iterator[Violation]:
        """I9: the daemon ends only when it is killed, gets ready, and has nothing to complain of."""
        kills = [d for d in self.history.deeds if d.action.kind is Kind.KILL]
        for life in self.history.lives:
            killed = any(life.ended is not None and d.begun <= life.ended <= d.done + 1.0 for d in kills)
            if life.ended is not None and not killed and life.ended < self.history.ended:
                yield self._say("I9", life.ended, "the daemon", "ended by itself")
        for at, text in self.history.troubles:
            yield self._say("I9", at, "the daemon", f"complained: {text}")

    def marks_stay(self) -> Iterator[Violation]:
        """I10: each uplink keeps its mark and table."""
        if not self.history.marks:
            return
        _, first = self.history.marks[0]
        for at, marks in self.history.marks[1:]:
            for name, numbers in marks.items():
                if first.get(name, numbers) != numbers:
                    text = f"had mark and table {first[name]}, now {numbers}"
                    yield self._say("I10", at, name, text)
                    return

    def all_is_well_in_the_end(self) -> Iterator[Violation]:
        """I5, I6, I11, I13, I14: what must be true once everything is mended."""
        end = self.history.ending
        if end is None:
            yield self._say("I9", self.history.ended, "the run", "never came to its end")
            return
        old, young = end.old, end.young
        held = (
            ("I7", "uplinks", end.back is not None, f"not up again: {dict(end.states)}"),
            ("I6", "plan", not end.differences, f"not empty: {'; '.join(end.differences[:4])}"),
            ("I5", "reload without a change", not end.reload_writes, f"wrote {end.reload_writes} times"),
            ("I9", "restart", not end.restart_writes, f"wrote {end.restart_writes} times"),
            ("I9", "restart", not end.restart_changes, f"changed {'; '.join(end.restart_changes[:4])}"),
            ("I11", "shares", end.deviation is None or end.deviation <= 1.0, f"{end.deviation} connections off"),
            ("I13", "descriptors", old.descriptors <= young.descriptors + DESCRIPTORS, f"{old} against {young}"),
            ("I13", "threads", old.threads <= young.threads + THREADS, f"{old} against {young}"),
            ("I13", "memory", old.memory <= young.memory + MEMORY, f"{old} against {young}"),
            ("I14", "down", not end.left_behind, f"left {'; '.join(end.left_behind[:4])}"),
        )
        for invariant, subject, kept, text in held:
            if not kept:
                yield self._say(invariant, end.at, subject, text)


def _grown(before: Mapping[int, int], after: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    return ((number, count - before.get(number, 0)) for number, count in after.items() if count > before.get(number, 0))
