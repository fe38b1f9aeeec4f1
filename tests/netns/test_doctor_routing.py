"""Doctor on routers whose packets do not find their egress: the fault is named without any traffic, and mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from support.doctor import doctor, mend, of, only

if TYPE_CHECKING:
    from support.netns import BuildLab

NAT = "table ip theirs { chain post { type nat hook postrouting priority 100; ip saddr 192.168.15.0/24 masquerade; }; }"
"""This box routes for the networks behind it."""

HAND_MADE = ["route add default via 100.64.2.1 dev wan2 table 202", "rule add fwmark 2 lookup 202"]
"""A second line by hand: its mark leads to its table, main's default leaves by the first."""

DROPPING = """table inet filter {
  chain forward {
    type filter hook forward priority 0;
    oifname "wan1" drop
  }
}"""


def test_strict_filtering_that_ignores_marks_is_found_without_traffic_and_mended(lab_of: BuildLab) -> None:
    router = lab_of(2, families=(Family.V4,)).router
    router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    router.run(["sysctl", "-qw", "net.ipv4.conf.wan1.rp_filter=1", "net.ipv4.conf.wan2.rp_filter=1"])
    router.ip(["route del default via 100.64.2.1", *HAND_MADE])

    finding = only(doctor(router), "strict-rp-filter")

    assert "wan2" in finding.what
    assert "wan1" not in finding.what
    mend(router, finding)
    assert of(doctor(router), "strict-rp-filter") == []


def test_a_main_table_without_default_is_found_and_mended_in_each_family(lab_of: BuildLab) -> None:
    router = lab_of(1).router
    for family in FAMILIES:
        router.run(["ip", f"-{family}", "route", "flush", "default"])
        router.run(["ip", f"-{family}", "route", "add", "default", "dev", "wan1", "table", "201"])
        router.run(["ip", f"-{family}", "rule", "add", "fwmark", "1", "lookup", "201"])

    findings = of(doctor(router), "no-default")

    assert [f"IPv{family}" in finding.what for family, finding in zip(FAMILIES, findings, strict=True)] == [True, True]
    for finding in findings:
        mend(router, finding)
    assert of(doctor(router), "no-default") == []


def test_a_box_without_any_way_out_is_told_so(lab_of: BuildLab) -> None:
    router = lab_of(1).router
    router.run(["ip", "link", "set", "wan1", "down"])

    assert "no link of this box" in only(doctor(router), "no-default").what


def test_forwarding_that_is_off_is_found_and_mended_in_each_family(lab_of: BuildLab) -> None:
    router = lab_of(1).router
    router.run(["sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])
    router.nft(NAT)

    findings = of(doctor(router), "forwarding-off")

    assert len(findings) == 2
    for finding in findings:
        assert "lan0 (" in finding.what
        mend(router, finding)
    assert of(doctor(router), "forwarding-off") == []


@pytest.mark.parametrize("forwarding", [0, 1])
def test_a_card_for_which_nobody_routes_is_no_network_behind_the_box(lab_of: BuildLab, forwarding: int) -> None:
    router = lab_of(1).router
    router.sysctl({"ipv4/ip_forward": forwarding, "ipv6/conf/all/forwarding": forwarding})
    router.nft("table inet theirs { chain forward { type filter hook forward priority 0; policy drop; }; }")

    assert doctor(router).findings == ()


def test_a_line_that_only_waits_behind_a_better_one_may_have_a_strict_filter(lab_of: BuildLab) -> None:
    router = lab_of(2, families=(Family.V4,)).router
    router.run(["sysctl", "-qw", "net.ipv4.conf.wan2.rp_filter=1"])
    router.ip(["route del default via 100.64.2.1", "route add default via 100.64.2.1 dev wan2 metric 500"])

    assert doctor(router).findings == ()


def test_a_healthy_router_has_no_finding(lab: Lab) -> None:
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
    lab.router.nft(NAT)

    assert doctor(lab.router).findings == ()


@pytest.mark.needs("iptables-nft")
def test_a_firewall_that_drops_one_pair_of_devices_is_named_with_its_rule(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=(Family.V4,))
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    lab.router.run(["iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "192.168.15.0/24", "-j", "MASQUERADE"])
    established = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    for words in ("-P FORWARD DROP", established, "-A FORWARD -i lan0 -o wan1 -j ACCEPT"):
        lab.router.run(["iptables-nft", *words.split()])

    finding = only(doctor(lab.router), "forward-drop")

    assert "to wan2" in finding.what
    assert "the policy of chain FORWARD" in finding.evidence[0]
    assert "iptables -I FORWARD -i lan0 -o wan2 -j ACCEPT" in (finding.fix.how if finding.fix else "")


def test_a_firewall_of_nft_that_drops_is_named_and_its_fix_works(lab_of: BuildLab) -> None:
    lab = lab_of(1, families=(Family.V4,))
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    lab.router.nft(DROPPING)
    lab.router.nft(
        'table ip nat { chain post { type nat hook postrouting priority 100; oifname "wan1" masquerade; }; }'
    )

    finding = only(doctor(lab.router), "forward-drop")

    assert 'oifname "wan1" drop' in finding.evidence[0]
    assert finding.fix is not None
    lab.router.nft(finding.fix.how.partition("nft ")[2])
    assert of(doctor(lab.router), "forward-drop") == []
