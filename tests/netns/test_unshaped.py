"""A kernel that lacks what shaping needs: it is named, and the uplink works without."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.core.plan.plan import Plan, removal
from polywan.core.shaping.changes import PutIfb, PutRedirect
from polywan.kernel.linux import LinuxKernel
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections
from support.netns import polywan, with_servers
from support.shaped_lines import bandwidth, configuration, kinds, planned

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

pytestmark = pytest.mark.needs("no cake")


def test_what_the_kernel_lacks_is_named_and_the_uplink_works_without_shaping(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(1)
    before = kinds(lab.router, "wan1")
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")), may_complain=True)
    lacking = "is not shaped: this kernel has no cake (CONFIG_NET_SCH_CAKE, module sch_cake)"
    name = daemon.uplink(1).name
    for what in ("leaves", "comes in"):
        assert sum(f"uplink {name}: what {what} by wan1 {lacking}" in text for text in daemon.status().warnings) == 1
        assert sum(f"what {what} by wan1 {lacking}" in line.text for line in daemon.log) == 1
    assert lacking in planned(lab, daemon).stderr
    assert [(q.active, "this kernel has no cake" in q.reason) for q in daemon.uplink(1).shaping] == [(False, True)] * 2
    assert "down: off: this kernel has no cake" in polywan(daemon, "status", name).stdout
    assert kinds(lab.router, "wan1") == before
    assert "pw-ifb" not in lab.router.run(["ip", "link"]).stdout

    async def story() -> None:
        with closing(await open_connections(lab, 3, SERVERS[Family.V4][0])) as opened:
            assert [connection.attempt.uplink for connection in opened.connections] == [1, 1, 1]

    with_servers(lab, story)
    assert asyncio.run(asyncio.to_thread(daemon.down)).failed == ()


def test_each_algorithm_names_its_own_discipline(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(1)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit", "prio")), may_complain=True)
    warnings = "\n".join(daemon.status().warnings)
    assert "what leaves by wan1 is not shaped: this kernel has no " in warnings
    assert "prio (CONFIG_NET_SCH_PRIO, module sch_prio)" in warnings
    assert "cake (" not in warnings


def test_an_ingress_whose_filter_is_refused_does_not_stay(lab_of: BuildLab) -> None:
    lab = lab_of(1)
    before = kinds(lab.router, "wan1")
    with lab.router.entered():
        kernel = LinuxKernel()
        try:
            refused = kernel.apply(Plan((PutIfb("pw-ifb1"), PutRedirect("wan1", "pw-ifb1")))).failures
            # A kernel without cake may have the rest.
            assert not refused or kinds(lab.router, "wan1") == before
            kernel.apply(removal(kernel.read((), frozenset()), ()))
        finally:
            kernel.close()
    assert kinds(lab.router, "wan1") == before
    assert "pw-ifb" not in lab.router.run(["ip", "link"]).stdout


def test_what_others_have_at_the_loopback_device_is_no_answer_to_what_the_kernel_has(lab_of: BuildLab) -> None:
    lab = lab_of(1)
    lab.router.run(["tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "pfifo"])
    with lab.router.entered():
        kernel = LinuxKernel()
        try:

            def lacking() -> frozenset[str]:
                queues = kernel.read((), frozenset({"cake"})).queues
                assert queues is not None
                return queues.lacking

            assert lacking() == frozenset()
            lab.router.run(["tc", "qdisc", "del", "dev", "lo", "root"])
            assert lacking() == {"cake"}
        finally:
            kernel.close()
