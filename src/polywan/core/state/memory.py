"""What outlives the daemon, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polywan.core.net import IPAddress
from polywan.core.policy.operator import Order
from polywan.core.state.outages import Outages
from polywan.core.world.paths import UplinkFamily


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What outlives the daemon; `daemon/store.py` keeps it.

    Attributes:
        mask: bits of marks that are ours; None when they are not in use, or an older version wrote this.
        ids: number of every uplink and of policies that need one, those no longer configured included.
        devices: network device of every uplink in `ids`, and where others have it, too, its router and source;
            `core/engine/renaming.py` tells by it what became of a name.
        gateways: last known next hop per uplink and family.
        originals: values that kernel settings had before polywan's first write, by path.
        orders: what people have said about uplinks by hand, those no longer configured included.
        drains: since when uplinks are left by themselves, Unix seconds.
        outages: when each uplink was lost, and for how long.
        unsure: what settings had before was lost once: those that are not in `originals` may be polywan's all the same.
    """

    mask: int | None = None
    ids: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    gateways: Mapping[UplinkFamily, IPAddress] = field(default_factory=dict)
    originals: Mapping[str, str] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    drains: Mapping[UplinkFamily, float] = field(default_factory=dict)
    outages: Outages = field(default_factory=dict)
    unsure: bool = False
