"""Laws of planning: it converges, it stops, and it is safe at every step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.config import Config
from polywan.core.marks import Numbers
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.plan import ActualState, Plan, diff, removal
from polywan.core.routing.sysctls import Sysctl
from polywan.core.ruleset.model import NftRule
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.world.observed import Observed
from polywan.kernel.fake.kernel import FakeKernel
from support.engine_world import Engine, config, link, world
from support.examples import examples

UPLINKS = 4


@st.composite
def worlds(draw: st.DrawFn) -> Observed:
    """Any mixture of missing, down, cable-less, address-less and gateway-less uplinks."""
    whole = world(UPLINKS, draw(st.sampled_from([FAMILIES, (Family.V4,)])))
    names = [f"wan{n}" for n in range(1, UPLINKS + 1)]
    # Every second time nobody is left out: else few worlds have an uplink that has all it takes.
    some = st.just(set(names)) | st.sets(st.sampled_from(names))
    present = draw(some)
    links = {name: link(int(name[3:]), up=draw(st.booleans()), carrier=draw(st.booleans())) for name in sorted(present)}
    with_address = draw(some)
    with_gateway = draw(some)
    return Observed(
        links=links,
        addresses=tuple(a for a in whole.addresses if a.link in present & with_address),
        defaults=tuple(
            d for d in whole.defaults if d.link in present & with_gateway & with_address and links[d.link].up
        ),
    )


weights = st.lists(st.integers(1, 9), min_size=UPLINKS, max_size=UPLINKS)


algorithms = st.sampled_from(["weighted", "multipath"])


def wanted(given_weights: list[int], algorithm: str) -> Config:
    tiers = [[f"u{n}" for n in range(1, UPLINKS + 1)]]
    return config(UPLINKS, given_weights, policies={"default": {"algorithm": algorithm, "tiers": tiers}})


def kernel_of(observed: Observed) -> FakeKernel:
    return FakeKernel(links=observed.links.values(), addresses=observed.addresses, defaults=observed.defaults)


@settings(deadline=None, max_examples=examples(60))
@given(worlds(), weights, algorithms)
def test_a_plan_carried_out_leaves_nothing_to_do(observed: Observed, given_weights: list[int], algorithm: str) -> None:
    daemon = Engine(wanted(given_weights, algorithm), observed)
    kernel = kernel_of(observed)
    for effect in daemon.plans():
        assert kernel.apply(effect.plan).failures == ()
    assert daemon.state.decision.desired is not None
    assert not diff(daemon.state.decision.desired, kernel.read([]))


@settings(deadline=None, max_examples=examples(40))
@given(st.lists(worlds(), min_size=2, max_size=5), weights, algorithms)
def test_any_world_can_follow_any_other(history: list[Observed], given_weights: list[int], algorithm: str) -> None:
    daemon = Engine(wanted(given_weights, algorithm), history[0])
    for observed in history[1:]:
        before = daemon.state.known.actual or ActualState()
        # What the kernel keeps when a device goes: everything but the routes by it.
        alive = {name for name, one in observed.links.items() if one.up}
        kept = replace(before, routes=frozenset(r for r in before.routes if r.link is None or r.link in alive))
        daemon.feed(ReadDone(observed, kept))
        assert daemon.state.decision.desired is not None
        assert daemon.state.known.actual is not None
        assert not diff(daemon.state.decision.desired, daemon.state.known.actual)


def unsafe_marks(kernel: FakeKernel, daemon: Engine, observed: Observed) -> list[str]:
    """Uplinks that packets are being sent to although their rule or route is not there."""
    actual = kernel.read([])
    if actual.nft is None:
        return []
    missing = []
    for name, slots in actual.nft.maps.items():
        if not name.startswith("slots_"):
            continue
        family = Family(int(name.split("_")[1]))
        for uplink in {verdict.removeprefix("goto to_") for verdict in slots.values()}:
            number = daemon.state.known.numbers.get(uplink)
            if number is None or not observed.links[f"wan{uplink[1:]}"].up:
                continue
            rule = any(r.mark and r.mark[0] == number.mark and r.family is family for r in actual.rules)
            route = any(r.table == number.table and r.family is family and r.link is not None for r in actual.routes)
            if not (rule and route):
                missing.append(f"{uplink} {family}")
    return missing


def unsafe_policies(kernel: FakeKernel, marks: Mapping[str, Numbers]) -> list[str]:
    """The same for marks of policies, which need a route by a group that stands."""
    actual, missing = kernel.read([]), []
    for family in FAMILIES:
        for policy, number in marks.items():
            leads = NftRule(f"meta nfproto {family.nfproto} goto by_{policy}", "multipath: the policy's own mark")
            chain = actual.nft.chains.get(f"policy_{policy}") if actual.nft else None
            if chain is None or leads.comment not in chain.rules:
                continue
            rule = any(r.mark and r.mark[0] == number.mark and r.family is family for r in actual.rules)
            groups = {r.nexthop for r in actual.routes if r.table == number.table and r.family is family}
            if not (rule and groups & {n.id for n in actual.nexthops}):
                missing.append(f"{policy} {family}")
    return missing


@settings(deadline=None, max_examples=examples(60))
@given(worlds(), worlds(), weights, weights, algorithms, algorithms)
def test_after_every_operation_of_a_plan_each_mark_that_is_given_out_finds_its_route(
    first: Observed, second: Observed, before: list[int], after: list[int], old: str, new: str
) -> None:
    # Links stay; addresses and gateways come and go.
    everything = world(UPLINKS)
    first, second = replace(first, links=everything.links), replace(second, links=everything.links)
    daemon = Engine(wanted(before, old), first)
    kernel = kernel_of(everything)
    for effect in daemon.plans():
        kernel.apply(effect.plan)
    marks = daemon.state.known.policy_marks
    daemon.feed(ConfigLoaded(wanted(after, new)))
    marks = {**marks, **daemon.state.known.policy_marks}
    daemon.effects.clear()
    daemon.feed(ReadDone(second, kernel.read([])))
    for effect in daemon.plans():
        for op in effect.plan.ops:
            kernel.apply(Plan((op,)))
            assert unsafe_marks(kernel, daemon, everything) == []
            assert unsafe_policies(kernel, marks) == []


@settings(deadline=None, max_examples=examples(40))
@given(worlds(), weights, algorithms)
def test_removal_leaves_nothing_and_restores_every_setting(
    observed: Observed, given_weights: list[int], algorithm: str
) -> None:
    daemon = Engine(wanted(given_weights, algorithm), observed)
    kernel = kernel_of(observed)
    kernel.sysctls = {f"net/ipv4/conf/wan{n}/rp_filter": "1" for n in range(1, UPLINKS + 1)}
    original = dict(kernel.sysctls)
    state = daemon.state
    assert state.decision.desired is not None
    kernel.apply(diff(state.decision.desired, kernel.read([s.path for s in state.decision.desired.sysctls])))
    kernel.apply(removal(kernel.read(list(original)), [Sysctl(p, v) for p, v in original.items()]))
    remaining = kernel.read(list(original))
    assert (remaining.routes, remaining.rules, remaining.nexthops, remaining.nft) == (
        frozenset(),
        frozenset(),
        frozenset(),
        None,
    )
    assert dict(remaining.sysctls) == original


@settings(deadline=None, max_examples=examples(40))
@given(worlds(), weights, algorithms)
def test_no_write_touches_a_bit_outside_the_mask(observed: Observed, given_weights: list[int], algorithm: str) -> None:
    daemon = Engine(wanted(given_weights, algorithm), observed)
    assert daemon.state.decision.desired is not None
    for rule in daemon.state.decision.desired.rules:
        if rule.mark is not None:
            assert rule.mark[0] & ~0x3F00 == 0
    for chain in daemon.state.decision.desired.nft.chains.values():
        for nft_rule in chain.rules:
            # Each write keeps the bits of others, adds bits of ours only, or meets packets without any bits.
            for write in nft_rule.text.split("mark set ")[1:]:
                assert re.match(r"(ct|meta) mark & 0xffffc0ff|meta mark \| 0x00003f00 |ct mark & 0x00003f00 ", write), (
                    nft_rule.text
                )


@settings(deadline=None, max_examples=examples(40))
@given(weights, algorithms)
def test_both_families_get_the_same_rules(given_weights: list[int], algorithm: str) -> None:
    daemon = Engine(wanted(given_weights, algorithm), world(UPLINKS))
    assert daemon.state.decision.desired is not None
    by_family = [
        {
            (r.priority, r.table, r.goto, r.mark, r.oif, r.iif, r.invert)
            for r in daemon.state.decision.desired.rules
            if r.family is family
        }
        for family in FAMILIES
    ]
    assert by_family[0] == by_family[1]
