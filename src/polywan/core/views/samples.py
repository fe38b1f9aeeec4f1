"""What is measured of the uplinks, second by second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polywan.api.views.stream import StreamSample, UplinkSample
from polywan.core.state.state import State
from polywan.core.status import rates
from polywan.core.status.document import Traffic, line_quality, uplinks_of
from polywan.core.status.rates import Sample


def measured(
    state: State, earlier: Sequence[Sample], now: Sample | None, counts: Mapping[int, int]
) -> dict[str, Traffic]:
    """Return the traffic of each uplink.

    Args:
        state: the engine's state.
        earlier: looks at the counters that rates are taken from, oldest first: the longer ago, the smoother.
        now: the last look; None before the first.
        counts: tracked connections by mark.
    """
    config = state.known.config
    if config is None:
        return {}
    found = {}
    for name in uplinks_of(state):
        connections, device = counts.get(config.numbers[name].mark, 0), config.uplinks[name].interface
        # Of a device that several uplinks have nobody knows whose its bytes are.
        counters = None if now is None or name in config.sharing else now.counters.get(device)
        if counters is None or now is None:
            found[name] = Traffic(connections=connections)
            continue
        rx, tx = rates.rate(earlier, device, counters, now.at)
        found[name] = Traffic(
            connections=connections,
            rx_bytes=counters.rx,
            tx_bytes=counters.tx,
            rx_bps=8 * rx,
            tx_bps=8 * tx,
            counted=True,
        )
    return found


def sample(state: State, traffic: Mapping[str, Traffic], time: str, *, counted: bool) -> StreamSample:
    """Return what is measured of every uplink.

    Args:
        state: the engine's state.
        traffic: as `measured` says.
        time: now, ISO 8601.
        counted: connections are known.
    """
    total = sum(each.connections for each in traffic.values())
    return StreamSample(
        time=time,
        uplinks={
            name: _sample(state, name, each, total if counted else None)
            for name in uplinks_of(state)
            if (each := traffic.get(name)) is not None
        },
    )


def _sample(state: State, name: str, traffic: Traffic, total: int | None) -> UplinkSample:
    """Return the sample of one uplink; `total` connections of all, None where they were not counted."""
    rtt_ms, jitter_ms, loss = line_quality(state, name)
    known = traffic.counted
    return UplinkSample(
        rx_bps=round(traffic.rx_bps) if known else None,
        tx_bps=round(traffic.tx_bps) if known else None,
        rx_bytes=traffic.rx_bytes if known else None,
        tx_bytes=traffic.tx_bytes if known else None,
        connections=None if total is None else traffic.connections,
        share_seen=round(traffic.connections / total, 4) if total else None,
        rtt_ms=rtt_ms,
        jitter_ms=jitter_ms,
        loss=loss,
    )
