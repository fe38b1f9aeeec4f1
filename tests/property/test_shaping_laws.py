"""Laws of shaping: it converges, it stops, it leaves what others have, and no packet is sent to where no queue is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.plan.plan import Plan, diff, removal
from polywan.core.state.events import ConfigLoaded, LinkChanged, LinkRemoved, OwnStateChanged
from polywan.kernel.fake.kernel import FakeKernel
from support.engine_world import link
from support.examples import examples
from support.shaped_worlds import ALL, Box, config, kernel_of

UPLINKS = 3
names = st.sampled_from([f"wan{n}" for n in range(1, UPLINKS + 1)])
shapings = st.fixed_dictionaries(
    {}, optional={"algorithm": st.sampled_from(["cake", "fq_codel", "prio"]), "share": st.sampled_from([0.5, 0.9])}
)
files = st.dictionaries(st.integers(1, UPLINKS), shapings)
accidents = st.one_of(
    st.tuples(st.just("root"), names, st.sampled_from(["", "fq_codel 77:"])),
    st.tuples(st.just("ingress"), names, st.sampled_from(["", "clsact"])),
    st.tuples(st.just("remade"), names, st.just("")),
    st.tuples(st.just("gone"), names, st.just("")),
    st.tuples(st.just("ifb"), st.sampled_from([f"pw-ifb{n}" for n in range(1, UPLINKS + 1)]), st.just("")),
    st.tuples(st.just("lacks"), st.sampled_from(sorted(ALL)), st.just("")),
    st.tuples(st.just("file"), files, st.just("")),
)


def happen(box: Box, what: str, whom: Any, how: str) -> None:
    kernel = box.kernel
    event: Any = OwnStateChanged("qdisc")
    if what == "root":
        kernel.tamper_queues(whom, root=how)
    elif what == "ingress":
        kernel.tamper_queues(whom, ingress=how)
    elif what == "lacks":
        # What is missing is missing from the start of a thing on: what is there works.
        kernel.lacks = frozenset({whom})
    elif what == "ifb" and whom in kernel.ifbs:
        kernel.tamper_delete_ifb(whom)
    elif what == "gone" and whom in kernel.links:
        kernel.remove_link(whom)
        event = LinkRemoved(whom)
    elif what == "remade":
        if whom in kernel.links:
            kernel.remove_link(whom)
            box.feed(LinkRemoved(whom))
        new = replace(link(int(whom[3:])), index=1000 + kernel.writes)
        kernel.set_link(new)
        event = LinkChanged(new)
    elif what == "file":
        event = ConfigLoaded(config(UPLINKS, whom))
    box.feed(event)


def unsafe(kernel: FakeKernel) -> list[str]:
    """Devices that send what comes in to where nothing takes it."""
    return [name for name, q in kernel.queues.items() if q.redirect and not kernel.ifbs.get(q.redirect)]


@settings(deadline=None, max_examples=examples(60))
@given(files, st.lists(accidents, max_size=6))
def test_whatever_happens_the_queues_are_as_wanted_in_the_end(file: Any, history: list[Any]) -> None:
    box = Box(config(UPLINKS, file), kernel_of(UPLINKS))
    for accident in history:
        happen(box, *accident)
        desired = box.daemon.state.decision.desired
        assert desired is not None
        assert not diff(desired, box.read().actual)
        assert unsafe(box.kernel) == []
        assert not box.daemon.state.done.retries.refused


@settings(deadline=None, max_examples=examples(60))
@given(files, files, st.lists(accidents, max_size=3))
def test_no_prefix_of_a_plan_sends_packets_to_where_nothing_takes_them(before: Any, after: Any, history: Any) -> None:
    box = Box(config(UPLINKS, before), kernel_of(UPLINKS))
    for accident in history:
        happen(box, *accident)
    box.daemon.effects.clear()
    box.daemon.feed(ConfigLoaded(config(UPLINKS, after)))
    box.daemon.feed(box.read())
    for effect in box.daemon.plans():
        for op in effect.plan.ops:
            box.kernel.apply(Plan((op,)))
            assert unsafe(box.kernel) == []


@settings(deadline=None, max_examples=examples(60))
@given(files, st.dictionaries(names, st.tuples(st.sampled_from(["", "htb 1:"]), st.sampled_from(["", "ingress"]))))
def test_removal_restores_what_was_there_before(file: Any, foreign: dict[str, tuple[str, str]]) -> None:
    kernel = kernel_of(UPLINKS)
    for device, (root, ingress) in foreign.items():
        kernel.tamper_queues(device, root=root, ingress=ingress)
    before = kernel.read((), ALL).queues
    Box(config(UPLINKS, file), kernel)
    assert kernel.apply(removal(kernel.read((), ALL), ())).failures == ()
    assert kernel.read((), ALL).queues == before
