"""Nexthops and groups of multipath policies: what is wanted, in which order, and what else comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from errno import EOPNOTSUPP
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from polywan.core.errors import ConfigError, KernelError
from polywan.core.marks import Numbers
from polywan.core.net import FAMILIES, Family, Mark, TableId
from polywan.core.plan.plan import (
    ActualState,
    AddRule,
    DelNexthop,
    DelRoute,
    DelRule,
    NftBatch,
    Op,
    PutNexthop,
    PutRoute,
    describe,
    describe_nexthop,
    describe_route,
    diff,
    phase,
    removal,
)
from polywan.core.resolved import resolve
from polywan.core.routing.nexthops import (
    MOST_WEIGHT,
    NEXTHOP_IDS,
    Nexthop,
    NexthopGroup,
    NexthopId,
    PolicyRouting,
    build_nexthops,
    group_id,
    nexthop_id,
    scaled,
)
from polywan.core.routing.routes import Route
from polywan.core.routing.sysctls import HASH_POLICIES, build_sysctls
from polywan.core.state.events import ForeignStateChanged, KernelEvent, OwnStateChanged, ReadDone
from polywan.core.world.observed import Address, Observed
from polywan.daemon.offline import dump, parse, recording
from polywan.daemon.reloading import demand
from polywan.kernel import requirements
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.fake.kernel import FakeKernel
from polywan.kernel.linux import LinuxKernel
from polywan.kernel.netlink import nexthops as nh
from polywan.kernel.netlink.socket import Message, NetlinkSocket
from polywan.kernel.notifications import Translator
from support.engine_world import Engine, config, link, world

TABLE = TableId(6003)


def policies(algorithm: str = "multipath", uplinks: int = 2) -> dict[str, Any]:
    return {"default": {"algorithm": algorithm, "tiers": [[f"u{n}" for n in range(1, uplinks + 1)]]}}


def daemon(*weights: int, observed: Observed | None = None) -> Engine:
    count = len(weights)
    return Engine(config(count, weights, policies=policies(uplinks=count)), observed or world(count))


def groups(engine: Engine) -> dict[int, tuple[tuple[int, int], ...]]:
    assert engine.state.decision.desired is not None
    return {n.id: n.members for n in engine.state.decision.desired.nexthops if isinstance(n, NexthopGroup)}


def ops(engine: Engine, effects: Any = None) -> list[Op]:
    return [op for effect in engine.plans(effects) for op in effect.plan.ops]


def test_each_family_has_a_nexthop_for_every_uplink_and_one_group_by_weight() -> None:
    engine = daemon(3, 1)
    assert engine.state.decision.desired is not None
    assert groups(engine) == {
        1_900_014_003: ((1_900_004_001, 3), (1_900_004_002, 1)),
        1_900_016_003: ((1_900_006_001, 3), (1_900_006_002, 1)),
    }
    assert {n.link for n in engine.state.decision.desired.nexthops if isinstance(n, Nexthop)} == {"wan1", "wan2"}


def test_the_policys_mark_leads_to_a_table_with_the_group_and_its_spares_before_the_silent_end() -> None:
    desired = daemon(3, 1).state.decision.desired
    assert desired is not None
    for family in FAMILIES:
        (rule,) = [r for r in desired.rules if r.family is family and r.table == TABLE]
        assert rule.mark == (0x300, 0x3F00)
        lines = {describe_route(r) for r in desired.routes if r.family is family and r.table == TABLE}
        group = 1_900_014_003 if family is Family.V4 else 1_900_016_003
        gateway, end = ("100.64.", ".1") if family is Family.V4 else ("2001:db8:64:", "::1")
        assert lines == {
            f"-{family} default nhid {group} table 6003 metric 1",
            *(f"-{family} default via {gateway}{n}{end} dev wan{n} table 6003 metric {n + 1}" for n in (1, 2)),
        }
        # Whom that table knows no way for meets the end that all marks share.
        (silent,) = [r for r in desired.routes if r.family is family and r.blackhole]
        ends = [
            r for r in desired.rules if r.family is family and r.table == silent.table and r.mark != (0x3F00, 0x3F00)
        ]
        assert [r.mark for r in ends if r.mark and 0x300 & r.mark[1] == r.mark[0]]
        assert all(rule.priority < end.priority for end in ends)


def test_an_uplink_that_serves_nobody_is_in_no_group_and_needs_no_nexthop() -> None:
    engine = daemon(1, 1, 1)
    engine.carrier(3, carrier=False)
    assert groups(engine)[group_id(4, Family.V4)] == ((1_900_004_001, 1), (1_900_004_002, 1))
    assert engine.state.decision.desired is not None
    assert not any(isinstance(n, Nexthop) and n.link == "wan3" for n in engine.state.decision.desired.nexthops)


def test_a_policy_that_nobody_serves_has_no_group_and_no_route() -> None:
    engine = daemon(1)
    engine.carrier(1, carrier=False)
    assert engine.state.decision.desired is not None
    assert engine.state.decision.desired.nexthops == frozenset()
    assert not [r for r in engine.state.decision.desired.routes if (r.family, r.table) == (Family.V4, TableId(6002))]
    assert any(r.blackhole for r in engine.state.decision.desired.routes)


def test_two_policies_share_the_nexthops_and_have_groups_of_their_own() -> None:
    both = {**policies(), "other": {"algorithm": "multipath", "tiers": [[{"uplink": "u1", "weight": 7}, "u2"]]}}
    engine = Engine(config(2, policies=both), world(2))
    assert engine.state.decision.desired is not None
    assert len([n for n in engine.state.decision.desired.nexthops if isinstance(n, Nexthop)]) == 4
    assert groups(engine)[group_id(4, Family.V6)] == ((1_900_006_001, 7), (1_900_006_002, 1))


def test_a_per_packet_policy_has_a_mark_and_no_table() -> None:
    engine = Engine(config(2, policies=policies("per-packet")), world(2))
    assert engine.state.decision.desired is not None
    assert engine.state.known.policy_marks["default"].table == TABLE
    assert engine.state.decision.desired.nexthops == frozenset()
    tables = {
        *(r.table for r in engine.state.decision.desired.rules),
        *(r.table for r in engine.state.decision.desired.routes),
    }
    assert TABLE not in tables


def test_links_without_next_hop_have_nexthops_of_the_packets_family() -> None:
    plain = world(1)
    observed = replace(plain, links={"wan1": link(1, point_to_point=True)}, defaults=())
    engine = daemon(1, observed=observed)
    assert engine.state.decision.desired is not None
    hops = sorted((n for n in engine.state.decision.desired.nexthops if isinstance(n, Nexthop)), key=lambda n: n.id)
    assert [(n.family, n.via) for n in hops] == [(Family.V4, None), (Family.V6, None)]


def test_ids_of_nexthops_and_groups_never_meet_and_lie_in_the_band() -> None:
    ids = [make(n, family) for make in (nexthop_id, group_id) for family in FAMILIES for n in range(1, 255)]
    assert len(set(ids)) == len(ids)
    assert all(ident in NEXTHOP_IDS for ident in ids)
    assert NEXTHOP_IDS.stop < 2**31


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1,), (1,)),
        ((3, 1), (3, 1)),
        ((600, 200), (3, 1)),
        ((1000, 1), (255, 1)),
        ((1000, 500, 1), (255, 128, 1)),
        ((255, 254), (255, 254)),
        ((256, 255), (255, 254)),
        ((1000, 1000), (1, 1)),
    ],
)
def test_weights_keep_their_proportions_within_what_every_kernel_takes(
    weights: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert scaled(weights) == expected
    assert max(expected) <= MOST_WEIGHT


def test_members_stand_in_order_of_their_ids_whatever_the_files_order() -> None:
    hops = [Nexthop(id=nexthop_id(n, Family.V4), family=Family.V4, link=f"wan{n}") for n in (9, 2)]
    share = tuple((hop, weight) for hop, weight in zip(hops, (5, 1), strict=True))
    policy = PolicyRouting(numbers=Numbers(3, Mark(0x300), TABLE, 6000), shares=((Family.V4, share),))
    group = policy.group(Family.V4)
    assert group is not None
    assert group.members == ((nexthop_id(2, Family.V4), 1), (nexthop_id(9, Family.V4), 5))
    assert policy.group(Family.V6) is None
    assert build_nexthops((policy,)) == {*hops, group}


KIND: Mapping[type[Op], str] = {
    PutRoute: "+route",
    AddRule: "+rule",
    NftBatch: "nft",
    DelRule: "-rule",
    DelRoute: "-route",
}


def kinds(ops: list[Op]) -> list[str]:
    """The kinds of operations in their order, each named once for a run of its kind."""
    named = [
        f"{'+' if isinstance(op, PutNexthop) else '-'}{'group' if isinstance(op.nexthop, NexthopGroup) else 'nexthop'}"
        if isinstance(op, PutNexthop | DelNexthop)
        else KIND.get(type(op), "")
        for op in ops
    ]
    return [name for before, name in pairwise(["", *named]) if name not in ("", before)]


def test_what_is_new_is_made_from_the_nexthop_to_the_mark() -> None:
    assert kinds(ops(daemon(3, 1))) == ["+nexthop", "+group", "+route", "+rule", "nft"]


def test_what_is_removed_goes_from_the_mark_to_the_nexthop() -> None:
    engine = daemon(3, 1)
    assert engine.state.known.actual is not None
    assert kinds(list(removal(engine.state.known.actual, ()).ops)) == ["nft", "-rule", "-route", "-group", "-nexthop"]


def test_a_lost_carrier_shrinks_the_groups_before_the_nexthops_go() -> None:
    engine = daemon(3, 1)
    lost = ops(engine, engine.carrier(1, carrier=False))
    assert kinds(lost) == ["+group", "nft", "-route", "-nexthop"]
    assert [op.nexthop for op in lost if isinstance(op, PutNexthop)] == [
        NexthopGroup(id=group_id(3, f), members=((nexthop_id(2, f), 1),)) for f in FAMILIES
    ]


def test_what_the_kernel_deleted_by_itself_is_put_back_with_its_groups() -> None:
    engine = daemon(3, 1)
    assert engine.state.known.actual is not None
    kernel = FakeKernel()
    kernel.nexthops.objects = {n.id: n for n in engine.state.known.actual.nexthops}
    kernel.nexthops.delete([nexthop_id(1, Family.V4)])
    found = replace(engine.state.known.actual, nexthops=frozenset(kernel.nexthops.objects.values()))
    repaired = ops(engine, engine.feed(ReadDone(world(2), found)))
    assert [describe(op).partition(" dev ")[0] for op in repaired] == [
        "+ nexthop -4 id 1900004001 via 100.64.1.1",
        "+ nexthop id 1900014003 group 1900004001,3/1900004002,1 type resilient buckets 1024 idle_timer 0",
    ]


def test_a_gateway_that_moved_replaces_the_nexthop_alone() -> None:
    engine = daemon(3, 1)
    moved = world(2)
    found = tuple(
        replace(d, via=type(d.via)(int(d.via) + 8)) if d.link == "wan1" and d.via else d for d in moved.defaults
    )
    changed = ops(
        engine, engine.feed(ReadDone(replace(moved, defaults=found), engine.state.known.actual or ActualState()))
    )
    assert not any(isinstance(op, PutNexthop) and isinstance(op.nexthop, NexthopGroup) for op in changed)
    assert {
        str(op.nexthop.via) for op in changed if isinstance(op, PutNexthop) and isinstance(op.nexthop, Nexthop)
    } == {
        "100.64.1.9",
        "2001:db8:64:1::9",
    }


@pytest.mark.parametrize("nexthop", [None, group_id(3, Family.V6)])
def test_a_route_that_took_anothers_place_is_not_removed_with_it(nexthop: Any) -> None:
    desired = daemon(3, 1).state.decision.desired
    assert desired is not None
    by_group = next(r for r in desired.routes if r.nexthop == group_id(3, Family.V6))
    by_device = Route(family=Family.V6, table=TABLE, metric=1, link="wan1")
    old, new = (by_device, by_group) if nexthop is None else (by_group, by_device)
    present = daemon(3, 1).state.known.actual
    assert present is not None
    actual = replace(present, routes=(desired.routes - {by_group}) | {old})
    wanted = replace(desired, routes=(desired.routes - {by_group}) | {new})
    assert diff(wanted, actual).ops == (PutRoute(new),)


def test_the_kernel_hashes_ports_only_while_some_policy_is_multipath() -> None:
    for algorithm, expected in (("multipath", dict.fromkeys(HASH_POLICIES, "1")), ("weighted", {})):
        found = build_sysctls(resolve(config(2, policies=policies(algorithm)), {}), world(2), {}, {})
        assert {s.path: s.value for s in found if s.path in HASH_POLICIES} == expected


@pytest.mark.parametrize(("present", "written"), [("0", True), ("1", True), ("2", False), ("3", False)])
def test_a_hash_policy_that_somebody_chose_by_hand_is_left_alone(present: str, written: bool) -> None:
    current = dict.fromkeys(HASH_POLICIES, present)
    paths = {s.path for s in build_sysctls(resolve(config(2, policies=policies()), {}), world(2), {}, current)}
    assert (set(HASH_POLICIES) <= paths) is written


def test_the_old_hash_policy_is_remembered_before_it_is_changed() -> None:
    engine = Engine(config(2, policies=policies()), world(2))
    present = (
        replace(engine.state.known.actual, sysctls=dict.fromkeys(HASH_POLICIES, "0"))
        if engine.state.known.actual
        else None
    )
    new = Engine(config(2, policies=policies()), world(2), present)
    assert {path: new.state.known.memory.originals.get(path) for path in HASH_POLICIES} == dict.fromkeys(
        HASH_POLICIES, "0"
    )


def test_nexthops_survive_a_recording() -> None:
    engine = daemon(3, 1)
    assert engine.state.known.actual is not None
    assert engine.state.known.observed is not None
    actual = replace(engine.state.known.actual, sysctls={})
    again = parse(dump(recording(engine.state.known.observed, actual)), "box.json").actual()
    assert (again.nexthops, again.routes) == (actual.nexthops, actual.routes)


def test_objects_are_described_in_the_words_of_ip() -> None:
    hop = Nexthop(id=nexthop_id(1, Family.V4), family=Family.V6, link="wan1", via=IPv6Address("fe80::1"), onlink=True)
    assert describe_nexthop(hop) == "-6 id 1900004001 via fe80::1 dev wan1 onlink"
    group = NexthopGroup(id=group_id(3, Family.V4), members=((hop.id, 2),), buckets=0)
    assert describe(DelNexthop(group)) == "- nexthop id 1900014003 group 1900004001,2 type mpath"
    assert phase(DelNexthop(group)) < phase(DelNexthop(hop))


def test_addresses_alone_change_no_nexthop() -> None:
    engine = daemon(3, 1)
    before = engine.state.decision.desired
    more = replace(world(2), addresses=(*world(2).addresses, Address("wan1", world(2).addresses[0].ip)))
    engine.feed(ReadDone(more, engine.state.known.actual or ActualState()))
    assert engine.state.decision.desired is not None
    assert before is not None
    assert engine.state.decision.desired.nexthops is before.nexthops


OWN, STRANGER = 100, 200
HOP = Nexthop(id=nexthop_id(1, Family.V4), family=Family.V4, link="wan1")


@pytest.mark.parametrize(
    ("ident", "protocol", "port", "expected"),
    [
        (HOP.id, 200, STRANGER, [OwnStateChanged("nexthop")]),
        (HOP.id, 200, 0, [OwnStateChanged("nexthop")]),
        (HOP.id, 200, OWN, []),
        (7, 4, STRANGER, [ForeignStateChanged("nexthop")]),
        # Somebody else took an id of ours.
        (HOP.id, 4, STRANGER, [OwnStateChanged("nexthop")]),
    ],
)
def test_a_notification_of_a_nexthop_is_ours_by_its_stamp_or_by_its_id(
    ident: int, protocol: int, port: int, expected: list[KernelEvent]
) -> None:
    for kind in (nh.NEWNEXTHOP, nh.DELNEXTHOP):
        body = nh.put_nexthop(replace(HOP, id=NexthopId(ident)), 1).body
        body = body[:2] + bytes((protocol,)) + body[3:]
        assert Translator(OWN, lambda p: p == OWN, []).route(Message(kind, 0, 0, port, body)) == expected


def test_nexthops_of_others_are_none_of_ours() -> None:
    body = nh.put_nexthop(HOP, 1).body
    assert nh.decode_nexthop(body[:2] + b"\x04" + body[3:], {1: "wan1"}) is None
    assert nh.decode_nexthop(body, {1: "wan1"}) == HOP


def test_a_nexthop_by_a_link_that_is_not_known_yet_is_like_none_that_is_wanted() -> None:
    found = nh.decode_nexthop(nh.put_nexthop(HOP, 9).body, {1: "wan1"})
    assert found == replace(HOP, link="#9")


def test_a_kernel_without_resilient_groups_is_told_only_when_a_policy_needs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: NetlinkSocket, kind: int, body: bytes) -> list[Message]:
        if kind == nh.GETNEXTHOPBUCKET:
            raise KernelError("dump", EOPNOTSUPP, "Operation not supported")
        return [Message(32, 0, 0, 0, bytes((af,)) + bytes(11)) for af in (2, 10)]

    monkeypatch.setattr(requirements, "has_net_admin", lambda: True)
    monkeypatch.setattr(requirements, "_nftables", lambda _: iter(()))
    monkeypatch.setattr(conntrack, "reachable", lambda: None)
    monkeypatch.setattr(NetlinkSocket, "snapshot", refuse)
    kernel = LinuxKernel()
    assert kernel.missing() == []
    (line,) = kernel.missing(multipath=True)
    kernel.close()
    assert line.startswith('resilient nexthop groups, which algorithm = "multipath" needs (Linux 5.13)')


def test_a_reload_that_asks_for_more_than_the_kernel_has_is_refused() -> None:
    old, plain, wanting = FakeKernel(missing=["resilient nexthop groups"]), config(2), config(2, policies=policies())
    demand(old, plain, plain, Path("polywan.toml"))
    demand(old, wanting, wanting, Path("polywan.toml"))
    demand(FakeKernel(), wanting, plain, Path("polywan.toml"))
    with pytest.raises(ConfigError, match="this machine lacks resilient nexthop groups"):
        demand(old, wanting, plain, Path("polywan.toml"))
