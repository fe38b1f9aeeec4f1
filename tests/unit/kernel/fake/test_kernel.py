"""The stand-in's own means: injected failures, tampering, and a count of writes."""

from __future__ import annotations

import asyncio
import errno

from polywan.core.net import Family, RulePriority, TableId
from polywan.core.plan.plan import AddRule, NftBatch, Plan, PutRoute, SetSysctl
from polywan.core.routing.routes import IpRule, Route
from polywan.core.routing.sysctls import Sysctl
from polywan.core.ruleset.model import Chain, NftRule, NftTable, replace_text, state_of
from polywan.core.state.events import EventsLost, KernelEvent
from polywan.kernel.fake.kernel import FakeKernel
from support.event_watch import events

BLOCK = Route(family=Family.V4, table=TableId(6001), metric=9, link=None)
RULE = IpRule(family=Family.V4, priority=RulePriority(6110), table=TableId(6001))


def failures(kernel: FakeKernel, *ops: PutRoute | AddRule | NftBatch) -> list[int]:
    return [failure.errno for failure in kernel.apply(Plan(ops)).failures]


def test_an_injected_failure_meets_the_next_operation_of_its_type() -> None:
    kernel = FakeKernel()
    kernel.fail_next(AddRule, errno.ENOBUFS)
    assert failures(kernel, PutRoute(BLOCK), AddRule(RULE), AddRule(RULE)) == [errno.ENOBUFS]
    assert kernel.rules == [RULE]


def test_injected_failures_that_nobody_met_can_be_told() -> None:
    kernel = FakeKernel()
    kernel.fail_next(AddRule, errno.EPERM, times=2)
    failures(kernel, AddRule(RULE))
    assert kernel.unconsumed_failures() == 1


def test_every_operation_of_a_plan_counts_as_a_write() -> None:
    kernel = FakeKernel()
    kernel.read(())
    failures(kernel, PutRoute(BLOCK), AddRule(RULE))
    assert kernel.writes == 2


def test_tampering_with_a_setting_tells_nobody_but_is_read() -> None:
    kernel = FakeKernel(sysctls={"net/ipv4/ip_forward": "1"})
    kernel.tamper_sysctl(Sysctl("net/ipv4/ip_forward", "0"))
    assert kernel.read(["net/ipv4/ip_forward"]).sysctls == {"net/ipv4/ip_forward": "0"}


def test_a_setting_this_kernel_lacks_is_refused() -> None:
    report = FakeKernel().apply(Plan((SetSysctl(Sysctl("net/absent", "1"), "0"),)))
    assert [failure.errno for failure in report.failures] == [errno.ENOENT]


def test_lost_events_are_announced_to_every_listener() -> None:
    async def main() -> list[KernelEvent]:
        kernel = FakeKernel()
        streams = events(kernel), events(kernel)
        kernel.lose_events()
        return [await anext(stream) for stream in streams]

    assert asyncio.run(main()) == [EventsLost(), EventsLost()]


def test_a_comment_longer_than_nft_takes_is_refused() -> None:
    table = NftTable(chains={"c": Chain((NftRule("accept", "x" * 120),))})
    kernel = FakeKernel()
    assert failures(kernel, NftBatch(replace_text(table))) == [0]
    assert kernel.nft is None


def test_words_in_a_comment_are_no_references() -> None:
    table = NftTable(chains={"c": Chain((NftRule("accept", "goto nowhere by @nothing"),))})
    kernel = FakeKernel()
    assert failures(kernel, NftBatch(replace_text(table))) == []
    assert kernel.nft == state_of(table)
