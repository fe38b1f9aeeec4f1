"""What all probing costs an uplink: bytes sent and received, counted as IP packets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from polywan.core.evolve import replace
from polywan.core.health.layers import Spent
from polywan.core.health.probes import ProbeTarget
from polywan.core.net import Family
from polywan.core.state.state import State
from polywan.core.world.paths import UplinkFamily

_PACKETS: Final = {"icmp": (40, 40), "tcp": (100, 60)}
"""Bytes of IPv4 packets, sent and received: an echo of 12 bytes; SYN and reset, SYN-ACK (RFC 792, RFC 9293)."""


def paid_round(state: State, key: UplinkFamily, targets: Iterable[ProbeTarget], now: float) -> State:
    """Count the bytes of a round that is sent now: its requests, and as many answers as usual from its targets."""
    name, family = key
    more = 0 if family is Family.V4 else 20
    lost = {measured.address: measured.loss for measured in state.health.rounds[key].quality.targets}
    sent, received = 0, 0.0
    for target in targets:
        pairs = [_PACKETS.get(method, _PACKETS["tcp"]) for method in target.methods]
        sent += sum(out + more for out, _ in pairs)
        received += sum(back + more for _, back in pairs) * (1 - lost.get(target.address, 0.0))
    return spend(state, name, sent, round(received), now)


def spend(state: State, uplink: str, sent: int, received: int, now: float) -> State:
    """Count bytes of an uplink's probes or checks, `now` in monotonic seconds."""
    old = state.health.checks.spent.get(uplink) or Spent(since=now, until=now)
    new = replace(old, until=now, sent=old.sent + sent, received=old.received + received)
    return replace(
        state,
        health=replace(
            state.health, checks=replace(state.health.checks, spent={**state.health.checks.spent, uplink: new})
        ),
    )
