"""Tables and routes made by hand: what is lost or old is found, and what is so on purpose is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from polywan.api.doctor import Finding
from polywan.core.net import TABLE_MAIN, Family
from polywan.core.world.foreign_routing import Destination
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes import emptied_table, equalize, hash_policy, lost_multipath, stale_copied_table
from polywan.doctor.facts.routes import parse
from support.recipe_boxes import address, box_of, default, fwmark, link, route, saved

MARKING = "[5:300] -A PREROUTING -s 10.8.8.0/24 -m state --state NEW -j CONNMARK --set-xmark 0x1/0xffffffff"
EVERYWHERE = Destination(prefix=ip_network("0.0.0.0/0"), link="ppp0")
VPN = Destination(prefix=ip_network("10.8.8.0/24"), link="tun0")


def found(check: Callable[[Box], Iterator[Finding]], box: Box) -> list[Finding]:
    return list(check(box))


def dialled(table: tuple[Destination, ...] = (VPN,), mangle: str = MARKING, **more: Any) -> Box:
    """Return the first recipe's box, whose mark 1 leads to table 201."""
    base: dict[str, Any] = {
        "addresses": (address("tun0", "10.8.8.1/24"), address("ppp0", "10.1.1.10/32"), address("eth0", "192.0.2.9/24")),
        "defaults": (default("eth0", via="192.0.2.1"),),
        "rules": (fwmark(1, 201),),
        "tables": {201: table} if table else {},
        "firewall": saved(mangle),
        "routes": (route("default", "eth0 via 192.0.2.1", scope="global"), route("10.8.8.0/24", "tun0")),
    }
    return box_of(link(2, "eth0"), link(3, "tun0"), link(4, "ppp0"), **{**base, **more})


class TestEmptiedTable:
    @pytest.mark.parametrize("table", [(), (VPN,)], ids=["without-routes", "with-connected-ones"])
    def test_a_mark_that_leads_to_a_table_without_default_is_found(self, table: tuple[Destination, ...]) -> None:
        (finding,) = found(emptied_table.check, dialled(table))

        assert "table 201" in finding.what
        assert any("5 packets" in line for line in finding.evidence)
        assert "eth0" in finding.consequence
        assert finding.severity == "fault"
        assert finding.fix is not None
        assert finding.fix.steps[0].command[-5:] == ("default", "dev", "ppp0", "table", "201")

    def test_without_a_line_that_is_up_and_idle_it_is_a_warning_in_words(self) -> None:
        (finding,) = found(emptied_table.check, dialled(defaults=(default("eth0"), default("ppp0", 202))))

        assert finding.severity == "warning"
        assert finding.fix is not None
        assert finding.fix.steps == ()
        assert "default dev DEVICE table 201" in finding.fix.how

    @pytest.mark.parametrize(
        ("path", "severity"),
        [("/etc/ppp/ip-up.local", "note"), ("/etc/ppp/ip-up.d/1", "note"), ("/etc/rc.local", "warning")],
    )
    def test_a_hook_will_add_the_route_when_the_line_comes_up(self, path: str, severity: str) -> None:
        scripts = {path: "ip route add default dev $IFNAME table $RT_TABLE\n"}
        box = dialled(defaults=(default("eth0"), default("ppp0", 202)), scripts=scripts)

        assert [finding.severity for finding in found(emptied_table.check, box)] == [severity]

    def test_a_script_says_by_which_device_it_led(self) -> None:
        scripts = {"/etc/rc.local": "ip route add default dev ppp0 table p0\n", "/etc/iproute2/rt_tables": "201 p0\n"}
        (finding,) = found(emptied_table.check, dialled(scripts=scripts))

        assert finding.fix is not None
        assert finding.fix.steps[0].command[-5:] == ("default", "dev", "ppp0", "table", "201")
        assert finding.fix.steps[1].command[3:5] == ("unreachable", "default")

    def test_a_table_that_has_the_name_of_a_device_leads_by_it(self) -> None:
        (finding,) = found(emptied_table.check, dialled(scripts={"/etc/iproute2/rt_tables": "201 ppp0 # first\n"}))

        assert finding.fix is not None
        assert finding.fix.steps[0].command[-5:] == ("default", "dev", "ppp0", "table", "201")

    @pytest.mark.parametrize(
        "box",
        [
            dialled((EVERYWHERE,)),
            dialled((Destination(prefix=ip_network("0.0.0.0/0"), kind="unreachable"),)),
            dialled((Destination(prefix=ip_network("0.0.0.0/1"), link="ppp0"),)),
            dialled((Destination(prefix=ip_network("172.16.0.0/12"), link="ppp0"),)),
            dialled(mangle="-A PREROUTING -j MARK --set-xmark 0x2/0xffffffff"),
            dialled(mangle=""),
            dialled(rules=(fwmark(1, 201, protocol=200),)),
            dialled(rules=(fwmark(1, 201, invert=True),)),
            dialled(rules=(fwmark(1, 201, to=ip_network("10.0.0.0/8")),)),
            dialled(rules=(fwmark(1, 201, suppress_prefixlength=0),)),
            dialled(rules=(fwmark(1, TABLE_MAIN),)),
        ],
        ids=[
            "default",
            "unreachable",
            "halves",
            "some",
            "other-mark",
            "no-mark",
            "ours",
            "not",
            "to",
            "suppress",
            "main",
        ],
    )
    def test_a_table_that_is_so_on_purpose_is_not_found(self, box: Box) -> None:
        assert found(emptied_table.check, box) == []


SCRIPT = "#!/bin/sh\nip route add default nexthop dev ppp0 weight 1 \\\n  nexthop dev ppp1 weight 1\n"


def pooled(*routes: Any, scripts: str = SCRIPT, **more: Any) -> Box:
    links = (link(2, "eth0"), link(3, "ppp0"), link(4, "ppp1"))
    return box_of(*links, routes=routes, scripts={"/etc/ppp/ip-up": scripts}, **more)


class TestLostMultipath:
    def test_a_route_that_a_script_adds_and_that_is_gone_is_found(self) -> None:
        (finding,) = found(lost_multipath.check, pooled())

        assert finding.severity == "fault"
        assert "ppp0 and ppp1" in finding.what
        assert "/etc/ppp/ip-up:2:" in finding.evidence[0]
        assert finding.fix is not None
        assert [" ".join(step.command) for step in finding.fix.steps] == [
            "ip nexthop add id 9001 dev ppp0",
            "ip nexthop add id 9002 dev ppp1",
            "ip nexthop add id 9000 group 9001/9002",
            "ip route add default nhid 9000",
        ]

    def test_another_default_makes_it_a_warning_that_only_words_mend(self) -> None:
        (finding,) = found(lost_multipath.check, pooled(route("default", "eth0 via 192.0.2.1")))

        assert finding.severity == "warning"
        assert finding.fix is not None
        assert finding.fix.steps == ()

    def test_a_member_without_carrier_is_a_fault_unless_the_kernel_passes_over_it(self) -> None:
        links = (link(3, "wan1"), link(4, "wan2", carrier=False))
        half = route("default", "wan1", "!wan2", scope="global")
        blind, seeing = (
            box_of(*links, routes=(half,), settings={"net/ipv4/conf/wan2/ignore_routes_with_linkdown": value})
            for value in ("0", "1")
        )

        assert [f.severity for f in found(lost_multipath.check, blind)] == ["fault"]
        assert [f.severity for f in found(lost_multipath.check, seeing)] == ["warning"]

    @pytest.mark.parametrize(
        "box",
        [
            pooled(route("default", "ppp0", "ppp1")),
            pooled(route("default", "ppp1", nexthop_id=10)),
            pooled(scripts="# ip route add default nexthop dev ppp0 nexthop dev ppp1\n"),
            pooled(scripts="ip route add default nexthop dev ppp0 nexthop dev ppp1 table 7\n"),
            pooled(scripts='ip route add default nexthop dev "$A" nexthop dev "$B"\n'),
            pooled(scripts="ip route add default nexthop dev gone0 nexthop dev gone1\n"),
            pooled(scripts="ip route add default dev ppp0\n"),
            pooled(scripts="ip route add 10.0.0.0/8 nexthop dev ppp0 nexthop dev ppp1\n"),
        ],
        ids=["there", "object", "comment", "table", "variables", "gone", "single", "no-default"],
    )
    def test_what_is_there_or_was_never_asked_for_is_not_found(self, box: Box) -> None:
        assert found(lost_multipath.check, box) == []


BOTH = route("default", "ppp0", "ppp1", scope="global")
OFF = {"net/ipv4/fib_multipath_hash_policy": "0"}


class TestHashPolicy:
    def test_a_multipath_default_that_looks_at_addresses_only_is_found(self) -> None:
        (finding,) = found(hash_policy.check, Box(routes=(BOTH,), settings=OFF))

        assert finding.fix is not None
        assert finding.fix.steps[0].command[-1] == "net.ipv4.fib_multipath_hash_policy=1"
        assert finding.fix.steps[1].path == "/etc/sysctl.d/90-uplinks.conf"

    @pytest.mark.parametrize(
        "box",
        [
            Box(routes=(BOTH,), settings={"net/ipv4/fib_multipath_hash_policy": "1"}),
            Box(routes=(BOTH,)),
            Box(routes=(route("default", "ppp0"),), settings=OFF),
            Box(routes=(route("10.0.0.0/8", "ppp0", "ppp1"),), settings=OFF),
            Box(routes=(BOTH._replace(protocol="bgp"),), settings=OFF),
            Box(routes=(BOTH._replace(protocol="200"),), settings=OFF),
        ],
        ids=["ports", "old-kernel", "one", "no-default", "daemon", "ours"],
    )
    def test_others_are_not(self, box: Box) -> None:
        assert found(hash_policy.check, box) == []


class TestEqualize:
    def test_the_word_is_found_in_a_route_of_a_script(self) -> None:
        script = "ip route add default equalize nexthop dev ppp0 nexthop dev ppp1\n"

        (finding,) = found(equalize.check, Box(scripts={"/etc/rc.local": script}))

        assert finding.evidence == ("/etc/rc.local:1: " + script.strip(),)

    @pytest.mark.parametrize("text", ["# ip route add default equalize", "equalize=1", "echo ip routes are equalized"])
    def test_elsewhere_it_is_not(self, text: str) -> None:
        assert found(equalize.check, Box(scripts={"/etc/rc.local": text})) == []


CPRT = "/sbin/ip route ls table $SOURCE | grep -v default > /tmp/r\n/sbin/ip route add table $DEST $line\n"


def copied(*routes: Any, lan: str = "192.168.5.1/24", scripts: str = "", **more: Any) -> Box:
    """Return a box with the network `lan` and table 201, which has the routes that are given."""
    return box_of(
        link(2, "lan0"),
        link(3, "ppp0"),
        addresses=(address("lan0", lan),),
        defaults=(default("ppp0", 201),),
        rules=(fwmark(1, 201),),
        routes=(*routes, route(str(address("lan0", lan).ip.network), "lan0", protocol="kernel")),
        scripts={"/usr/local/sbin/cprt": scripts},
        **more,
    )


class TestStaleCopiedTable:
    def test_a_network_that_was_renumbered_is_found(self) -> None:
        (finding,) = found(stale_copied_table.check, copied(route("192.168.1.0/24", "lan0", table="201")))

        assert "192.168.1.0/24 dev lan0" in finding.what
        assert finding.fix is not None
        assert [" ".join(step.command) for step in finding.fix.steps] == [
            "ip route del 192.168.1.0/24 dev lan0 table 201",
            "ip route replace 192.168.5.0/24 dev lan0 table 201",
        ]

    def test_a_network_that_came_after_a_script_had_copied_is_found(self) -> None:
        (finding,) = found(stale_copied_table.check, copied(route("10.8.8.0/24", "tun9", table="201"), scripts=CPRT))

        assert "lan0 (192.168.5.0/24) is missing" in finding.what

    @pytest.mark.parametrize(
        "box",
        [
            copied(route("192.168.5.0/24", "lan0", table="201")),
            copied(route("192.168.5.0/24", "lan0", table="201"), scripts=CPRT),
            copied(route("10.8.8.0/24", "tun9", table="201")),
            copied(route("192.168.1.0/24", "lan0", table="201", protocol="kernel")),
            copied(route("192.168.1.0/24", "lan0", table="201", protocol="200")),
            copied(route("192.168.1.1/32", "lan0", table="201")),
            copied(route("192.168.1.0/24", "lan0", table="300")),
            copied(route("192.168.1.0/24", "lan0", table="201"), route("192.168.1.0/24", "lan0")),
            copied(scripts=CPRT),
        ],
        ids=["same", "copied", "own-choice", "kernel", "ours", "router", "not-used", "in-main", "no-copy"],
    )
    def test_a_table_that_is_as_it_should_be_is_not(self, box: Box) -> None:
        assert found(stale_copied_table.check, box) == []


def test_a_listing_by_scope_does_not_say_the_scope_again() -> None:
    listed = [{"dst": "10.8.8.0/24", "dev": "tun0", "table": "201", "protocol": "boot"}, {"dst": "nonsense"}]

    assert list(parse(listed, Family.V4, "link")) == [route("10.8.8.0/24", "tun0", table="201")]
