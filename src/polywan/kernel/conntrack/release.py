"""Let go of every connection of a dead uplink: forget, make speak, end; in turns until all is done or tried.

Everything is done while connections are read, so that the first are free while the last are still unknown.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.net import Family, MarkLayout
from polywan.kernel.api import Freed
from polywan.kernel.conntrack import local_sockets
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.conntrack.challenge_ack import CHALLENGE_TURNS, End, challenge
from polywan.kernel.conntrack.forgotten import ForgottenConnections

ANSWER_WAIT: Final = 0.025
"""Seconds that answers are given before it is looked who is left; most take less than one millisecond."""

UNPACED_SEGMENTS: Final = 2000
"""Segments up to which turns are not waited for: looking who is left costs up to 15 ms, with a large table."""


def free(mark: int, mask: int, family: Family, own: Collection[bytes], *, tcp: bool, inbound: bool = True) -> Freed:
    """Let go of the connections of a mark in a family; see `Tracker.cut`.

    Args:
        mark: theirs, under `mask`.
        mask: bits of the mark that are ours.
        family: theirs.
        own: addresses of this box, packed.
        tcp: end established TCP as well.
        inbound: let go of what came in from outside, too.

    Raises:
        KernelError: the kernel refused to show connections.
    """
    work = _Work(family, tcp=tcp)
    for turn in range(CHALLENGE_TURNS):
        challenged = work.take(conntrack.find(mark, mask, family, own, inbound=inbound), turn)
        if not challenged or work.mute:
            return work.freed(silent=len(challenged))
        if len(challenged) * CHALLENGE_TURNS <= UNPACED_SEGMENTS:
            for further in range(turn + 1, CHALLENGE_TURNS):
                work.challenge(challenged, further)
        time.sleep(ANSWER_WAIT)
        if len(challenged) * CHALLENGE_TURNS <= UNPACED_SEGMENTS:
            break
    return work.freed(
        silent=sum(len(f.inside) + len(f.own) for f in conntrack.find(mark, mask, family, own, inbound=inbound))
    )


def free_vanished(
    vanished: ForgottenConnections,
    mark: int,
    mask: int,
    family: Family,
    own: Collection[bytes],
    *,
    exempt: Collection[bytes] = frozenset(),
) -> Freed:
    """Let go of the TCP connections of a mark that the kernel forgot of late, or meanwhile; see `free`.

    Args:
        vanished: what the kernel forgot.
        mark: theirs, under `mask`.
        mask: bits of the mark that are ours.
        family: theirs.
        own: addresses of this box, packed.
        exempt: addresses whose untranslated connections are left alone.

    Raises:
        KernelError: the kernel refused.
    """
    freed = Freed()
    while (back := vanished.put_back(mark, mask, family, exempt)).connections:
        freed += free(MarkLayout(mask).reserved, mask, family, {*own, *back.own}, tcp=True)
    return freed


class _Work:
    """What was done so far for the connections of one mark and family; see `free`.

    Attributes:
        mute: nobody can be made to speak.
    """

    def __init__(self, family: Family, *, tcp: bool) -> None:
        self.mute = False
        self._family, self._tcp = family, tcp
        self._forgotten = self._challenged = self._ended = 0
        self._problems: list[str] = []

    def take(self, found: Iterable[conntrack.Found], turn: int) -> list[End]:
        """Do what can be done for connections while they are found; return the ends that were made to speak."""
        spoken: list[End] = []
        challenged = 0
        for some in found:
            self._forgotten += conntrack.delete(some.doomed)
            if self._tcp:
                remaining = self._end(some.own)
                challenged += len(remaining) + len(some.inside)
                ends = [*remaining, *(end for ends in some.inside for end in ends)]
                self.challenge(ends, turn)
                spoken += ends
        self._challenged = max(self._challenged, challenged)
        return spoken

    def challenge(self, ends: Sequence[End], turn: int) -> None:
        """Make ends speak."""
        try:
            if not self.mute:
                challenge(ends, self._family, turn)
        except KernelError as e:
            self.mute = True
            self._problems.append(f"idle TCP clients are reset only when they next send: {e}")

    def _end(self, own: Sequence[tuple[End, conntrack.Deletion]]) -> list[End]:
        """End sockets of this box and forget their connections; return those that have to be made to speak instead."""
        try:
            done = local_sockets.destroy([end for end, _ in own], self._family)
        except KernelError as e:
            self._problems += [] if self._problems else [f"sockets cannot be closed and get resets instead: {e}"]
            done = [False] * len(own)
        # The socket's own reset may not have closed the entry, and nobody is left to use it.
        conntrack.delete([deletion for (_, deletion), gone in zip(own, done, strict=True) if gone])
        self._ended += done.count(True)
        return [end for (end, _), gone in zip(own, done, strict=True) if not gone]

    def freed(self, *, silent: int) -> Freed:
        """Sum up; `silent` of those that were told are still open."""
        return Freed(
            forgotten=self._forgotten,
            challenged=self._challenged,
            silent=min(silent, self._challenged),
            ended=self._ended,
            problems=tuple(self._problems),
        )
