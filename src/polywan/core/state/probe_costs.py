"""What all probing costs an uplink: bytes sent and received, counted as IP packets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from polywan.core.evolve import replace
from polywan.core.health.layers import Spent
from polywan.core.health.probes import ProbeTarget
from polywan.core.net import Family
from polywan.core.state.state import State
from polywan.core.world.paths import UplinkFamily

_PACKETS: Final = {"icmp": (40, 40), "tcp": (100, 60)}
"""Bytes of IPv4 packets, sent and received: an echo of 12 bytes; SYN and reset, SYN-ACK (RFC 792, RFC 9293)."""


def paid_rounds(state: State, rounds: Mapping[UplinkFamily, Iterable[ProbeTarget]], now: float) -> State:
    """Count the bytes of rounds that are sent now: requests to these targets, and as many answers as usual."""
    spent = dict(state.health.checks.spent)
    for key, targets in rounds.items():
        more = 0 if key[1] is Family.V4 else 20
        quality = state.health.rounds[key].quality
        sent, received = 0, 0.0
        for target in targets:
            measured = quality.of(target.address)
            answered = 1 - measured.loss if measured is not None else 1.0
            for method in target.methods:
                out, back = _PACKETS.get(method, _PACKETS["tcp"])
                sent += out + more
                received += (back + more) * answered
        spent[key[0]] = _more(spent.get(key[0]), sent, round(received), now)
    return replace(state, health=replace(state.health, checks=replace(state.health.checks, spent=spent)))


def spend(state: State, uplink: str, sent: int, received: int, now: float) -> State:
    """Count bytes of an uplink's probes or checks, `now` in monotonic seconds."""
    spent = state.health.checks.spent
    spent = {**spent, uplink: _more(spent.get(uplink), sent, received, now)}
    return replace(state, health=replace(state.health, checks=replace(state.health.checks, spent=spent)))


def _more(old: Spent | None, sent: int, received: int, now: float) -> Spent:
    if old is None:
        return Spent(since=now, until=now, sent=sent, received=received)
    return Spent(since=old.since, until=now, sent=old.sent + sent, received=old.received + received)
