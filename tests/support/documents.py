"""Status documents for tests: all is well unless they say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from polywan.api.status import (
    ChoiceStatus,
    FamilyStatus,
    Member,
    OutageStatus,
    PolicyStatus,
    Status,
    TargetStatus,
    UplinkStatus,
)


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def family(state: str = "up", reason: str = "has a path", **more: Any) -> FamilyStatus:
    known: dict[str, Any] = {
        "state": state,
        "reason": reason,
        "layers": {},
        "since": ago(190),
        "address": "100.64.1.2",
        "gateway": "100.64.1.1",
        "share": 0.5,
        "rtt_ms": 12.34,
        "loss": 0.0,
        "held_for": None,
        "targets": (
            TargetStatus(target="1.1.1.1", missed=0, rtt_ms=12.3, loss=0.0),
            TargetStatus(target="8.8.8.8", missed=1, rtt_ms=None, loss=1.0),
        ),
    }
    return FamilyStatus(**known | more)


def uplink(name: str, state: str = "up", share: float = 0.0, **more: Any) -> UplinkStatus:
    families = more.pop("families", None) or {"ipv4": family(state), "ipv6": family(state)}
    known: dict[str, Any] = {
        "name": name,
        "interface": "wan1",
        "state": state,
        "since": ago(190),
        "reason": "has a path",
        "weight": 1,
        "slow_start": None,
        "metered": False,
        "share": share,
        "gateway": "100.64.1.1",
        "gateway6": None,
        "address": "100.64.1.2",
        "address6": None,
        "prefixes6": (),
        "nat6_mode": None,
        "mark": 0x100,
        "table": 6001,
        "rtt_ms": 12.34,
        "jitter_ms": 0.5,
        "loss": 0.0,
        "late": None,
        "queue_ms": None,
        "drain": None,
        "connections": 42,
        "rx_bps": 12_345_678,
        "tx_bps": 298_000,
        "rx_bytes": 10_000,
        "tx_bytes": 20_000,
        "probe_bytes": 0,
        "probe_bytes_month": None,
        "layers": {},
        "families": families,
        "standby": False,
        "shares": dict.fromkeys(families, share),
        "held_for": None,
        "outages_today": 0,
        "last_outage_s": None,
        "outages": (),
        "unanswered": None,
    }
    return UplinkStatus(**known | more)


def outage(began_ago: float, seconds: float | None, reason: str) -> OutageStatus:
    return OutageStatus(since=ago(began_ago), seconds=seconds, reason=reason)


def policy(name: str, members: Mapping[str, Mapping[str, float]], title: str = "", reason: str = "") -> PolicyStatus:
    """A policy with the shares of its uplinks by family."""
    families = {
        word: ChoiceStatus(
            active_tier=0,
            reason=reason,
            members=tuple(Member(uplink=n, share=s) for n, s in shares.items()),
        )
        for word, shares in members.items()
    }
    return PolicyStatus(
        name=name,
        title=title or f"policy {name}",
        algorithm="weighted",
        direct=name.startswith("uplink_"),
        active_tier=0,
        members=next(iter(families.values())).members,
        families=families,
    )


def status(*uplinks: UplinkStatus, policies: tuple[PolicyStatus, ...] = (), **more: Any) -> Status:
    known: dict[str, Any] = {
        "schema": 1,
        "version": "1",
        "generation": 1,
        "since": ago(1000),
        "ready": True,
        "uplinks": uplinks,
        "policies": policies,
        "drift": (),
        "warnings": (),
        "apply_ms": 1.0,
        "apply_ops": 1,
    }
    return Status(**known | more)
