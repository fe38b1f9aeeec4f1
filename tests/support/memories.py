"""A daemon's memory with something in every part of it."""

from __future__ import annotations

from ipaddress import ip_address

from polywan.core.net import Family
from polywan.core.policy.operator import Order, Verb
from polywan.core.state.memory import Memory
from polywan.core.state.outages import History, Outage

MEMORY = Memory(
    ids={"fibre": 1, "lte": 2},
    gateways={("fibre", Family.V4): ip_address("100.64.1.1"), ("lte", Family.V6): ip_address("fe80::1")},
    originals={"net/ipv4/conf/wan1/rp_filter": "1"},
    orders={
        "fibre": Order(verb=Verb.DISABLE, since=1_800_000_000.5),
        "lte": Order(verb=Verb.DRAIN, since=1_800_000_000.0, until=1_800_000_600.0, empty=True),
    },
    drains={("lte", Family.V4): 1_800_000_000.25},
    outages={
        "lte": History(
            day=20833,
            count=3,
            last=(
                Outage(began=1_800_000_000.0, lasted=None, reason="no carrier"),
                Outage(began=1_799_990_000.0, lasted=12.5, reason="no carrier"),
            ),
        )
    },
)
