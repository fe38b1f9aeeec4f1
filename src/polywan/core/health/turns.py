"""Which target a round asks while all is well: one, each in turn, and all of them at the first sign of doubt.

An uplink is *well* while its last `rise` rounds were good, all is decided, and no target has lost an answer within the
window of loss or given it late. One answer then tells what a quorum would: that the line carries. A silent line is
noticed as early as with whole rounds: the round of one target is suspect at the same moment, and bad at the same
moment, as a whole one that is sent at its time; all that follow are whole until one of them is good. Only with `fall`
of 3 or more: of fewer rounds, one lost packet would be too large a part of a verdict.

A target that does not answer by this uplink, is bad by all, or needs longer than a round may take before it is suspect
decides nothing, and is asked along with another one at its turn: its death costs no whole rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polywan.config import HealthSettings
from polywan.core.health.rounds import Health, ProbeState, suspect_after
from polywan.core.net import IPAddress

LEAST_FALL: Final = 3
"""Bad rounds that a verdict needs at least, for one of them to be of one target."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A round that does not ask everybody: those that it asks, and the one whose answer decides it."""

    asked: tuple[IPAddress, ...]
    decides: IPAddress

    @classmethod
    def of(cls, target: IPAddress) -> Turn:
        """Return a round of this target alone."""
        return cls((target,), target)


def turn(
    probes: ProbeState,
    settings: HealthSettings,
    targets: Sequence[IPAddress],
    counted: Sequence[IPAddress],
    misses: Mapping[IPAddress, int],
    now: float,
) -> Turn | None:
    """Return whom the round asks that is sent now; None when it asks everybody.

    Args:
        probes: what is known of the uplink in this family.
        settings: of the uplink.
        targets: all of the family.
        counted: those that are not bad.
        misses: probes in a row without an answer by this uplink.
        now: monotonic seconds.
    """
    if len(targets) <= settings.quorum_for(len(targets)) or len(probes.quality.targets) > len(targets):
        return None
    if not _well(probes, settings) or now < probes.sent + settings.interval:
        return None
    able = _able(probes, settings, counted, misses)
    if able is None or len(able) < settings.quorum_for(len(counted)):
        return None
    place = probes.number % len(targets)
    decides = next(target for target in (*targets[place:], *targets[:place]) if target in able)
    return Turn.of(decides) if targets[place] == decides else Turn((targets[place], decides), decides)


def _well(probes: ProbeState, settings: HealthSettings) -> bool:
    if probes.health is not Health.UP or probes.open or probes.bad or probes.waiting is not None:
        return False
    quality = probes.quality
    proven = probes.good >= settings.rise and probes.number > probes.void
    return proven and not quality.busy and not quality.poor and settings.fall >= LEAST_FALL


def _able(
    probes: ProbeState, settings: HealthSettings, counted: Sequence[IPAddress], misses: Mapping[IPAddress, int]
) -> Collection[IPAddress] | None:
    """Return the targets that can decide a round alone; None while there is doubt about one that counts."""
    soon = suspect_after(probes, settings) / 2
    silent = [address for address, missed in misses.items() if missed >= settings.fall] if any(misses.values()) else ()
    able = []
    for address in counted:
        target = probes.quality.of(address)
        if target is None:
            return None
        if address in silent:
            continue
        if target.lost or target.late:
            return None
        if target.rtt is not None and target.rtt <= soon:
            able.append(address)
    return able
