"""What shaping wants of the kernel, what is in its way, and how it gets there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polywan.core.engine import step as engine
from polywan.core.plan.plan import Plan, describe, removal
from polywan.core.resolved import resolve
from polywan.core.shaping.changes import DelIfb, DelRedirect, DelTree, PutIfb, PutRedirect, PutTree, ShapingOp
from polywan.core.shaping.shapers import shared_rates
from polywan.core.state.effects import Log
from polywan.core.state.events import ConfigLoaded, ForeignStateChanged, LinkChanged, LinkRemoved, OwnStateChanged
from polywan.core.status.document import document
from polywan.daemon.offline import dump, parse, recording
from support.engine_world import link
from support.shaped_worlds import ALL, Box, config, kernel_of


def ops(plans: list[Plan]) -> list[type]:
    return [type(op) for plan in plans for op in plan.ops if isinstance(op, ShapingOp)]


def shaped(box: Box, device: str, ifb: str) -> bool:
    queues = box.kernel.queues
    there = device in queues and ifb in queues
    return there and bool(queues[device].tree and queues[ifb].tree) and queues[device].redirect == ifb


def warnings(box: Box) -> list[str]:
    return [text for text in box.daemon.state.decision.warnings if "not shaped" in text]


def test_an_uplink_is_shaped_in_both_directions_and_then_nothing_is_left_to_do() -> None:
    box = Box(config(2, {1: {}}), kernel_of(2))
    assert shaped(box, "wan1", "pw-ifb1")
    assert "wan2" not in box.kernel.queues
    assert box.feed(OwnStateChanged("qdisc")) == []


def test_without_shaping_nobody_looks_at_queues_after_the_first_read() -> None:
    box = Box(config(2, {}), kernel_of(2))
    assert engine.queue_kinds(box.daemon.state) is None
    assert box.kernel.queues == {}


def test_an_uplink_that_is_not_enabled_is_not_shaped() -> None:
    box = Box(config(2, {1: {}}, enabled=False), kernel_of(2))
    assert (box.kernel.queues, box.kernel.ifbs) == ({}, {})


def test_a_reload_with_another_rate_changes_parts_in_place() -> None:
    box = Box(config(1, {1: {"algorithm": "fq_codel"}}), kernel_of(1))
    box.daemon.effects.clear()
    box.feed(ConfigLoaded(config(1, {1: {"algorithm": "fq_codel", "share": 0.5}})))
    (plan,) = [effect.plan for effect in box.daemon.plans()]
    assert [describe(op) for op in plan.ops] == [
        "+ class dev pw-ifb1 parent 6000: classid 6000:1 htb rate 25Mbit",
        "+ class dev wan1 parent 6000: classid 6000:1 htb rate 5Mbit",
    ]


def test_a_reload_with_another_algorithm_makes_the_tree_anew() -> None:
    box = Box(config(1, {1: {}}), kernel_of(1))
    box.daemon.effects.clear()
    box.feed(ConfigLoaded(config(1, {1: {"algorithm": "prio"}})))
    assert ops([effect.plan for effect in box.daemon.plans()]) == [DelTree, DelTree, PutTree, PutTree]
    assert shaped(box, "wan1", "pw-ifb1")


def test_a_reload_without_shaping_leaves_nothing_of_it() -> None:
    box = Box(config(1, {1: {}}), kernel_of(1))
    box.daemon.effects.clear()
    box.feed(ConfigLoaded(config(1, {})))
    assert ops([effect.plan for effect in box.daemon.plans()]) == [DelRedirect, DelTree, DelIfb]
    assert box.kernel.ifbs == {}
    assert engine.queue_kinds(box.daemon.state) is None


def test_a_new_device_of_the_same_name_is_shaped_and_nobody_is_blamed() -> None:
    box = Box(config(2, {1: {}}), kernel_of(2))
    box.kernel.remove_link("wan1")
    box.feed(LinkRemoved("wan1"))
    assert box.kernel.ifbs == {"pw-ifb1": True}
    new = replace(link(1), index=99)
    box.kernel.set_link(new)
    box.daemon.effects.clear()
    plans = box.feed(LinkChanged(new))
    assert ops(plans) == [PutTree, PutRedirect]
    assert shaped(box, "wan1", "pw-ifb1")
    assert not [e for e in box.daemon.effects if isinstance(e, Log) and e.event == "drift.repaired"]


@pytest.mark.parametrize(
    ("root", "ingress", "texts"),
    [
        (
            "fq_codel 77:",
            None,
            ["what leaves by wan1 is not shaped: another program's fq_codel 77: is there, and stays"],
        ),
        (None, "clsact", ["what comes in by wan1 is not shaped: another program's clsact is there, and stays"]),
    ],
)
def test_what_others_have_there_stays_and_is_named(root: str | None, ingress: str | None, texts: list[str]) -> None:
    kernel = kernel_of(1)
    kernel.tamper_queues("wan1", root=root, ingress=ingress)
    box = Box(config(1, {1: {}}), kernel)
    assert [text.split("; ")[0].removeprefix("uplink u1: ") for text in warnings(box)] == texts
    assert kernel.queues["wan1"].foreign_root == (root or "")
    assert kernel.queues["wan1"].foreign_ingress == (ingress or "")
    assert bool(kernel.queues["wan1"].tree) is (root is None)
    assert (kernel.queues["wan1"].redirect is None) is (ingress is not None)
    assert bool(kernel.ifbs) is (ingress is None)


@pytest.mark.parametrize("shapings", [{}, {1: {}}])
def test_a_shaped_device_that_carries_others_is_named(shapings: dict[int, dict[str, str]]) -> None:
    kernel = kernel_of(1)
    kernel.set_link(replace(link(7), name="wan1.7", index=77, kind="vlan", parent=link(1).index))
    kernel.set_link(replace(link(8), name="wan1.8", index=78, kind="vlan", parent=link(1).index, up=False))
    box = Box(config(1, shapings), kernel)
    found = [text for text in box.daemon.state.decision.warnings if "also carries" in text]
    wanted = (
        "uplink u1: wan1 also carries wan1.7, and all of it shares the rate of u1; shape the devices that lead to the "
        "providers, and not one that carries others"
    )
    assert found == ([wanted] if shapings else [])


def test_a_shaped_device_that_carries_pppoe_is_named() -> None:
    observed = replace(kernel_of(1).observe(), sessions=frozenset({"wan1"}))
    (text,) = shared_rates(resolve(config(1, {1: {}}), {}), observed)
    assert text.startswith("uplink u1: wan1 also carries a PPPoE session, and all of it shares the rate of u1;")


def test_a_device_of_others_with_the_name_of_our_ifb_gets_no_traffic() -> None:
    kernel = kernel_of(1)
    kernel.set_link(replace(link(7), name="pw-ifb1", index=77))
    box = Box(config(1, {1: {}}), kernel)
    (text,) = warnings(box)
    assert text == (
        "uplink u1: what comes in by wan1 is not shaped: another program's device pw-ifb1 is there, and stays; "
        "remove it (ip link del pw-ifb1), or remove shaping"
    )
    assert "pw-ifb1" not in kernel.queues
    assert kernel.queues["wan1"].redirect is None
    assert not box.daemon.state.done.retries.refused
    (uplink,) = document(box.daemon.state, "0", 0.0, 0.0, {}).uplinks
    assert [q.active for q in uplink.shaping] == [False, True]


def test_what_others_filter_as_it_comes_in_is_not_taken_from_them() -> None:
    box = Box(config(1, {1: {}}), kernel_of(1))
    assert shaped(box, "wan1", "pw-ifb1")
    box.daemon.effects.clear()
    box.kernel.tamper_ingress_chain("wan1", "chain filter of table netdev guard")
    assert ops(box.feed(ForeignStateChanged("chain"))) == [DelRedirect, DelIfb]
    (text,) = warnings(box)
    assert text == (
        "uplink u1: what comes in by wan1 is not shaped: another program's chain filter of table netdev guard "
        "(nftables) looks at it, and would see none of it any more; move its rules to a chain of family inet at the "
        "hook prerouting, or remove shaping"
    )
    assert not [e for e in box.daemon.effects if isinstance(e, Log) and e.event == "drift.repaired"]
    box.kernel.tamper_ingress_chain("wan1", "")
    box.feed(ForeignStateChanged("chain"))
    assert shaped(box, "wan1", "pw-ifb1")


def test_what_others_put_there_later_is_not_fought_and_what_is_deleted_comes_back() -> None:
    box = Box(config(1, {1: {}}), kernel_of(1))
    box.kernel.tamper_queues("wan1", root="fq_codel 78:")
    box.feed(OwnStateChanged("qdisc"))
    assert box.kernel.queues["wan1"].foreign_root == "fq_codel 78:"
    assert len(warnings(box)) == 1
    box.kernel.tamper_queues("wan1", root="")
    box.feed(OwnStateChanged("qdisc"))
    assert shaped(box, "wan1", "pw-ifb1")
    assert warnings(box) == []
    box.kernel.tamper_delete_ifb("pw-ifb1")
    box.daemon.effects.clear()
    plans = box.feed(OwnStateChanged("qdisc"))
    assert ops(plans) == [DelRedirect, PutIfb, PutTree, PutRedirect]
    assert [e.event for e in box.daemon.effects if isinstance(e, Log)] == ["drift.repaired"]


@pytest.mark.parametrize(
    ("lacks", "texts"),
    [
        ({"cake"}, ["what leaves by wan1", "what comes in by wan1"]),
        ({"ifb"}, ["what comes in by wan1"]),
        ({"mirred", "ingress"}, ["what comes in by wan1"]),
        ({"prio"}, []),
    ],
)
def test_what_the_kernel_lacks_is_named_by_direction(lacks: set[str], texts: list[str]) -> None:
    kernel = kernel_of(1)
    kernel.lacks = frozenset(lacks)
    box = Box(config(1, {1: {}}), kernel)
    assert [text.split(" is not shaped: this kernel has no ")[0] for text in warnings(box)] == [
        f"uplink u1: {text}" for text in texts
    ]
    assert all(kind in text for text in warnings(box) for kind in lacks)
    assert not box.daemon.state.done.retries.refused


def test_status_tells_each_direction_and_why_one_is_off() -> None:
    kernel = kernel_of(1)
    kernel.tamper_queues("wan1", root="fq_codel 77:")
    box = Box(config(1, {1: {"algorithm": "prio"}}), kernel)
    (uplink,) = document(box.daemon.state, "0", 0.0, 0.0, {}).uplinks
    down, up = uplink.shaping
    assert (down.direction, down.algorithm, down.device, down.rate_bps, down.active, down.reason) == (
        "down",
        "prio",
        "pw-ifb1",
        47_500_000,
        True,
        "",
    )
    assert (up.direction, up.rate_bps, up.active) == ("up", 9_500_000, False)
    assert up.reason.startswith("another program's fq_codel 77: is there")


def test_status_tells_that_a_device_is_not_there() -> None:
    kernel = kernel_of(2)
    kernel.remove_link("wan1")
    box = Box(config(2, {1: {}}), kernel)
    first, _ = document(box.daemon.state, "0", 0.0, 0.0, {}).uplinks
    assert [(q.active, q.reason) for q in first.shaping] == [(False, "there is no such device")] * 2


def test_removal_takes_what_is_ours_and_nothing_else() -> None:
    kernel = kernel_of(2)
    kernel.tamper_queues("wan2", root="fq_codel 77:", ingress="clsact")
    Box(config(2, {1: {}, 2: {}}), kernel)
    kernel.apply(removal(kernel.read((), ALL), ()))
    assert kernel.ifbs == {}
    assert not kernel.queues["wan1"].tree
    assert (kernel.queues["wan2"].foreign_root, kernel.queues["wan2"].foreign_ingress) == ("fq_codel 77:", "clsact")


def test_queues_survive_a_recording() -> None:
    kernel = kernel_of(2)
    kernel.tamper_queues("wan2", root="fq_codel 77:")
    box = Box(config(2, {1: {"algorithm": "prio"}, 2: {}}), kernel)
    actual = box.read().actual
    assert actual.queues is not None
    assert parse(dump(recording(kernel.observe(), actual)), "box.json").actual().queues == actual.queues
