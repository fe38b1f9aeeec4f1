"""What people say about uplinks by hand, and the daemon keeps: disable, drain, enable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal

from polywan.core.resolved import Resolved

DEADLINE: Final = 600.0
"""Seconds that `drain` gives connections when nobody says otherwise."""


class Verb(StrEnum):
    """What can be asked of an uplink, and is kept."""

    DISABLE = "disable"
    DRAIN = "drain"
    ENABLE = "enable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What holds for an uplink until `enable`; times are Unix seconds, since it outlives the daemon.

    Attributes:
        verb: "disable": no new connections and no probes; "drain": no new connections, and the others have to go.
        until: when connections that are left are ended; None unless draining.
        empty: draining is over, nothing was left.
    """

    verb: Literal[Verb.DISABLE, Verb.DRAIN]
    since: float
    until: float | None = None
    empty: bool = False


def order_of(verb: Verb, now: float, deadline: float) -> Order | None:
    """Return what a verb puts in force at a Unix time; None lifts what was in force.

    Args:
        verb: what is asked.
        now: Unix seconds.
        deadline: seconds that `drain` gives connections.
    """
    match verb:
        case Verb.DISABLE:
            return Order(verb=Verb.DISABLE, since=now)
        case Verb.DRAIN:
            return Order(verb=Verb.DRAIN, since=now, until=now + deadline)
        case Verb.ENABLE:
            return None


def off(config: Resolved, orders: Mapping[str, Order], name: str) -> bool:
    """True when the uplink is not to be used at all, by the file or by hand: no new connections, no probes."""
    order = orders.get(name)
    return not config.uplinks[name].enabled or (order is not None and order.verb is Verb.DISABLE)


def available(config: Resolved, orders: Mapping[str, Order], name: str) -> bool:
    """True when new connections may be given to the uplink, as far as file and people are concerned."""
    return config.uplinks[name].enabled and name not in orders


def reason(name: str, order: Order) -> str:
    """Return why the uplink is out of use, for people."""
    since = moment(order.since)
    if order.verb is Verb.DISABLE:
        return f"disabled by operator since {since}"
    if order.empty or order.until is None:
        return f"drained by operator since {since}; `polywan uplink enable {name}` puts it back into use"
    return f"draining by operator since {since}; remaining connections end at {moment(order.until)}"


def moment(unix: float) -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
