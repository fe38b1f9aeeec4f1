"""Views for tests of `polywan top`: a status that all is well with, a minute of samples, connections and events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.api.status import Status, UplinkStatus
from polywan.api.views.flow_rows import FlowRow
from polywan.api.views.stream import StreamSample, UplinkSample
from polywan.top.display import Display
from polywan.top.lines import painted
from polywan.top.screen import Size, screen
from polywan.top.view import FlowsRead, View, hear
from support.documents import family, policy, status, uplink


def three() -> Status:
    """One uplink is down, two share."""
    members = {"fibre": 0.75, "lte": 0.25}
    lost = {"ipv4": family("down", "no carrier"), "ipv6": family("down", "no carrier")}
    return status(
        uplink("fibre", share=0.75, rx_bps=8_400_000, tx_bps=420_000),
        uplink("dsl", "down", families=lost, rtt_ms=None, loss=None, rx_bps=0, tx_bps=0, connections=0),
        uplink("lte", share=0.25, rx_bps=2_100_000, tx_bps=1_000),
        policies=(policy("default", {"ipv4": members, "ipv6": members}),),
    )


def many(count: int = 53) -> Status:
    """Every seventh uplink is down."""
    return status(
        *(
            uplink(f"isp{n}", "down" if n % 7 == 0 else "up", 0.0 if n % 7 == 0 else 1 / 46, connections=n)
            for n in range(1, count + 1)
        )
    )


def sample(uplinks: Sequence[UplinkStatus], second: int = 59) -> StreamSample:
    """What is measured in one second of a minute in which the rates rise to what the status says."""
    part = (second + 1) / 60
    measured = {
        u.name: UplinkSample(
            rx_bps=int(u.rx_bps * part),
            tx_bps=int(u.tx_bps * part),
            rx_bytes=u.rx_bytes,
            tx_bytes=u.tx_bytes,
            connections=u.connections,
            share_seen=u.share or None,
            rtt_ms=u.rtt_ms,
            jitter_ms=u.jitter_ms,
            loss=u.loss,
        )
        for u in uplinks
    }
    return StreamSample(time="2026-11-30T08:00:00+00:00", uplinks=measured)


def flow(number: int, **more: Any) -> FlowRow:
    """A connection of a client in the LAN."""
    known: dict[str, Any] = {
        "family": 4,
        "protocol": 6,
        "client": f"192.168.15.{number}",
        "client_port": 50000 + number,
        "destination": "198.18.0.10",
        "port": 443,
        "reply_source": "198.18.0.10",
        "reply_source_port": 443,
        "reply_destination": "100.64.1.2",
        "reply_destination_port": 50000 + number,
        "state": "ESTABLISHED",
        "mark": 0x100,
        "age": 61.0 * number,
        "timeout": 100,
        "bytes_up": 1_000_000 // number,
        "bytes_down": 90_000_000 // number,
        "packets_up": 1,
        "packets_down": 1,
        "fast": 0,
        "uplink": "fibre",
    }
    return FlowRow(**known | more)


def entry(number: int, **more: Any) -> LinkEvent:
    """An entry of the journal."""
    known = {
        **dict.fromkeys(LinkEvent.__fields__),
        "id": number,
        "time": f"2026-11-30T08:00:{number:02}+00:00",
        "uplink": "dsl",
        "interface": "eth2",
        "event": "state",
        "state": "down",
        "previous_state": "up",
        "reason": "no carrier",
        "lasted_s": 3600.0,
        "rx_bytes": 12_000_000,
        "tx_bytes": 3_000_000,
    }
    return decode(LinkEvent, {**known, **more})


def view(document: Status | None = None, *, now: datetime | None = None, minute: bool = True, **more: Any) -> View:
    """Return a view of a status after a minute, with some connections and an event."""
    document = document or three()
    now = now or datetime.now(UTC)
    made = View(display=Display(), status=document, heard=now)
    for second in range(60 if minute else 0):
        made = hear(made, sample(document.uplinks, second), now)
    made = hear(made, FlowsRead(rows=tuple(flow(n) for n in range(1, 31)), total=300), now)
    return replace(hear(made, entry(1), now), **more)


def text(made: View, columns: int = 80, rows: int = 24, now: datetime | None = None) -> list[str]:
    """Return the lines of the screen without their styles."""
    lines = screen(made, Size(columns, rows), now or datetime.now(UTC))
    return [plain(painted(line, columns, colours=True)) for line in lines]


def plain(line: str) -> str:
    """Return a line without what sets its styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()
