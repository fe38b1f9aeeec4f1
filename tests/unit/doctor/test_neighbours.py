"""Other programs are named where they are in the way, and left in peace where they are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from polywan.api.doctor import Finding
from polywan.core.firewall.model import (
    Action,
    Chain,
    Choose,
    Firewall,
    Flowtable,
    MarkIs,
    Match,
    Offload,
    Program,
    Rule,
    SetMark,
    Statistic,
    Table,
)
from polywan.core.net import TABLE_MAIN, Family, RulePriority, TableId
from polywan.core.world.foreign_routing import WHOLE, Destination, ForeignRule
from polywan.core.world.observed import DefaultRoute, Link, WideRoute
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours import NEIGHBOURS
from polywan.doctor.examine import examine
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.programs import ProgramFacts, addition, removal
from support.engine_world import MASK, config, world

IPV4 = ip_network("0.0.0.0/0")
TABLES = {
    TableId(n): (Destination(prefix=IPV4, link=link),) for n, link in ((200, "tun0"), (201, "wan1"), (202, "wan2"))
}
LINES = tuple(Egress(f"wan{n}", f"wan{n}", Family.V4, 254) for n in (1, 2))
TUN = Link(index=90, name="tun0", up=True, carrier=True, kind="tun")


def rule(priority: int = 100, table: int | None = 202, **fields: Any) -> ForeignRule:
    values: dict[str, Any] = {"family": Family.V4, "priority": RulePriority(priority), "table": table, **fields}
    return ForeignRule(**values)


def rules_of(*actions: Action, matches: Iterable[Match] = (), chain: str = "PREROUTING", **table: Any) -> Table:
    made: dict[str, Any] = {"program": "iptables", "family": "ip", "name": "mangle", **table}
    return Table(chains=(Chain(chain, rules=(Rule("the rule", tuple(matches), actions),)),), **made)


def box(*tables: Table, rules: tuple[ForeignRule, ...] = (), ours: bool = True, **more: Any) -> Box:
    """A box with two lines; polywan is configured, with the mask 0x3f00, or nobody knows it."""
    seen = replace(world(2), rules=rules, tables=TABLES)
    seen = replace(seen, links={**seen.links, "tun0": TUN}, **more.pop("observed", {}))
    values: dict[str, Any] = {"config": config(2), "config_path": "/etc/polywan.toml"} if ours else {}
    return Box(observed=seen, firewall=Firewall(tables), egresses=LINES, **values, **more)


def found(machine: Box, check: str) -> list[Finding]:
    diagnosis = examine(machine, NEIGHBOURS, 0.0)
    assert diagnosis.not_checked == ()
    return [finding for finding in diagnosis.findings if finding.check == check]


def only(machine: Box, check: str) -> Finding:
    (finding,) = found(machine, check)
    return finding


def how(finding: Finding) -> str:
    return finding.fix.how if finding.fix is not None else ""


DOCKER = rules_of(SetMark("packet", 0x200, WHOLE), chain="DOCKER-INGRESS")
TAILSCALE = rules_of(SetMark("packet", 0x4_0000, 0xFF_0000), chain="ts-forward", name="filter")
CILIUM = rules_of(SetMark("packet", 0x200, 0xF00), chain="CILIUM_PRE_mangle")
KUBERNETES = rules_of(SetMark("packet", 0x4000, 0x4000), chain="KUBE-MARK-MASQ", name="nat")
MWAN3 = rules_of(SetMark("packet", 0x200, 0x3F00), chain="mwan3_policy_balanced")
PBR = rules_of(
    SetMark("packet", 0x4_0000, 0xFF_0000), chain="pbr_mark_0x040000", program="nftables", family="inet", name="fw4"
)
BY_TURNS = rules_of(SetMark("connection", 2, WHOLE), matches=[Statistic("nth", 2, 1, 0.5)])
WG_RULES = (
    rule(32764, TABLE_MAIN, suppress_prefixlength=0),
    rule(32765, 200, mark=(51820, WHOLE), invert=True),
)
TAILSCALE_RULES = (
    rule(5210, TABLE_MAIN, mark=(0x8_0000, 0xFF_0000)),
    rule(5230, 253, mark=(0x8_0000, 0xFF_0000)),
    rule(5250, None, action="unreachable", mark=(0x8_0000, 0xFF_0000)),
    rule(5270, 52),
)


# ---- nothing is found on boxes that do the same on purpose

PEACEFUL = {
    "nothing": box(),
    "nothing, without polywan": box(ours=False),
    "a host with one line and a tunnel": replace(box(ours=False, rules=WG_RULES), egresses=LINES[:1]),
    "Tailscale and Kubernetes": box(TAILSCALE, KUBERNETES, rules=TAILSCALE_RULES),
    "Docker's networks": box(rules_of(chain="DOCKER", name="nat"), rules_of(chain="DOCKER-USER", name="filter")),
    "a mark beside ours": box(rules_of(SetMark("packet", 1, WHOLE))),
    "a whole mark that a rule names": box(
        rules_of(SetMark("packet", 0xCA6C, WHOLE)), rules=(rule(300, 999, mark=(0xCA6C, WHOLE)),)
    ),
    "comparing packets": box(rules_of(matches=[MarkIs("packet", 0x1)])),
    "comparing its own bits": box(rules_of(matches=[MarkIs("connection", 0x1, 0xFF)])),
    "asking for no mark": box(rules_of(matches=[MarkIs("connection", 0)])),
    "our own tables": box(
        rules_of(SetMark("connection", 0x100, MASK), program="nftables", family="inet", name="polywan"),
        rules_of(Offload("fast"), program="nftables", family="inet", name="polywan_fast"),
    ),
    "mwan3 alone": box(MWAN3, ours=False, rules=(rule(2001, 201, mark=(0x100, 0x3F00)),)),
    "by hand alone": box(BY_TURNS, ours=False, rules=(rule(100, 202, mark=(2, WHOLE)),)),
    "mwan3 and Tailscale": box(MWAN3, TAILSCALE, ours=False, rules=TAILSCALE_RULES),
    "a statistic that marks for no table": box(rules_of(SetMark("packet", 9, WHOLE), matches=[Statistic("random")])),
    "a rule for an uplink's own address": box(rules=(rule(table=201, from_=ip_network("100.64.1.2/32")),)),
    "an own flowtable of the LAN": box(
        replace(rules_of(Offload("lan"), program="nftables"), flowtables=(Flowtable("lan", ("lan0", "lan1")),))
    ),
    "one line in a flowtable": box(
        replace(rules_of(Offload("f"), program="nftables"), flowtables=(Flowtable("f", ("lan0", "wan1")),)), ours=False
    ),
    "a tunnel for a network": box(
        observed={"parts": (WideRoute(ip_network("0.0.0.0/1"), "tun0"),), "wide": frozenset({"tun0"})}
    ),
}


@pytest.mark.parametrize("peaceful", PEACEFUL.values(), ids=PEACEFUL)
def test_a_box_whose_programs_get_along_has_no_finding(peaceful: Box) -> None:
    assert examine(peaceful, NEIGHBOURS, 0.0).findings == ()


# ---- mark-overlap


@pytest.mark.parametrize(
    ("table", "program", "severity"),
    [
        (DOCKER, "Docker", "fault"),
        (CILIUM, "Cilium", "fault"),
        (rules_of(SetMark("packet", 0x3000)), "another", "warning"),
    ],
)
def test_a_program_that_writes_bits_of_ours_is_named_with_a_free_mask(
    table: Table, program: str, severity: str
) -> None:
    finding = only(box(table), "mark-overlap")
    assert finding.what.startswith(program)
    assert (finding.severity, finding.what.endswith("(0x3f00)")) == (severity, True)
    assert "the rule" in finding.evidence[0]
    assert "`mark_mask = 0x3f000000` below [global] in /etc/polywan.toml" in how(finding)


def test_a_policy_rule_that_compares_bits_of_ours_is_named() -> None:
    finding = only(box(rules=(rule(2001, 202, mark=(0x200, 0xFF00)),)), "mark-overlap")
    assert finding.severity == "fault"
    assert finding.evidence == ("ip rule: 2001: from all fwmark 0x200/0xff00 lookup 202",)


def test_the_proposed_mask_is_free_of_the_bits_of_all_others() -> None:
    taken = rules_of(SetMark("packet", 0x100_0000, 0xFF00_0000), chain="mine")
    finding = found(box(CILIUM, taken), "mark-overlap")[0]
    assert "mark_mask = 0x3f0000" in how(finding)


def test_no_mask_is_proposed_when_none_is_free() -> None:
    taken = [rules_of(SetMark("packet", value, value)) for value in (0x3F00_0000, 0xFF00, 0x3F_0000, 0x3F)]
    assert how(found(box(*taken), "mark-overlap")[0]).startswith("no common mask is free")


def test_marks_that_are_chosen_from_a_map_count_one_by_one() -> None:
    table = rules_of(Choose("connection", "nth", 2, ((0x100, 1), (0x200, 1))), program="nftables", chain="mine")
    assert only(box(table), "mark-overlap").severity == "fault"


def test_a_rule_that_compares_whole_marks_of_connections_is_named_with_what_to_compare() -> None:
    finding = only(box(rules_of(matches=[MarkIs("connection", 1)])), "mark-overlap")
    assert finding.severity == "warning"
    assert "`--mark 0x1/0xffffc0ff`" in how(finding)


def test_two_others_with_one_mark_are_named_on_a_box_with_several_lines() -> None:
    finding = only(box(MWAN3, CILIUM, ours=False), "mark-overlap")
    assert finding.what == "mwan3 and Cilium use the same mark, 0x200 of 0xf00"
    finding = only(box(PBR, TAILSCALE, ours=False), "mark-overlap")
    assert "pbr and Tailscale" in finding.what
    assert found(replace(box(PBR, TAILSCALE, ours=False), egresses=LINES[:1]), "mark-overlap") == []


# ---- rules-before-ours


def test_a_rule_to_one_uplink_is_a_warning_with_the_command_that_removes_it() -> None:
    finding = only(box(rules=(rule(from_=ip_network("192.168.15.40/32")),)), "rules-before-ours")
    assert finding.severity == "warning"
    assert 'give polywan a rule with `uplink = "u2"`' in how(finding)
    assert "`ip -4 rule del priority 100 from 192.168.15.40 lookup 202`" in how(finding)


def test_a_rule_that_leads_a_network_elsewhere_is_a_note() -> None:
    finding = only(box(rules=(rule(table=200, from_=ip_network("192.168.15.0/24")),)), "rules-before-ours")
    assert finding.severity == "note"


def test_a_rule_in_our_band_is_named_with_a_free_band() -> None:
    finding = only(box(rules=(rule(6100, 999), rule(7200, 999))), "rules-before-ours")
    assert "`priority = 8000` below [global] in /etc/polywan.toml" in how(finding)


def test_a_rule_that_precedes_all_is_moved_before_it_is_removed() -> None:
    finding = only(box(rules=(rule(0, 254, from_=ip_network("10.0.0.0/8")),)), "rules-before-ours")
    assert finding.severity == "fault"
    assert finding.fix is not None
    assert [" ".join(step.command) for step in finding.fix.steps] == [
        "ip -4 rule add priority 3 from 10.0.0.0/8 lookup main",
        "ip -4 rule del priority 0 from 10.0.0.0/8 lookup main",
    ]


def test_commands_name_the_whole_rule_and_none_is_made_for_a_rule_that_is_not_understood() -> None:
    ours = rule(
        7, 200, family=Family.V6, mark=(1, 0xFF), invert=True, iif="lan0", sport=(1, 2), suppress_prefixlength=0
    )
    words = "not from all fwmark 0x1/0xff iif lan0 sport 1-2 lookup 200 suppress_prefixlength 0"
    assert removal(ours) == ("ip", "-6", "rule", "del", "priority", "7", *words.split())
    assert addition(ours, 9) == ("ip", "-6", "rule", "add", "priority", "9", *words.split())
    assert removal(replace(ours, unknown=True)) is None


# ---- manager-removes-rules

NETWORKD = ProgramFacts(running=frozenset({"systemd-network"}), managed=frozenset({11}))
HAND_MADE = rule(100, 202, mark=(2, WHOLE), protocol=3)


def saying(*texts: str) -> ProgramFacts:
    return replace(NETWORKD, networkd={f"/etc/systemd/networkd.conf.d/{n}.conf": text for n, text in enumerate(texts)})


def test_networkd_that_removes_rules_by_hand_is_named_with_them() -> None:
    finding = only(box(ours=False, rules=(HAND_MADE,), programs=NETWORKD), "manager-removes-rules")
    assert finding.severity == "warning"
    assert "(wan1)" in finding.what
    assert finding.evidence[-1] == "ip rule: 100: from all fwmark 0x2 lookup 202"
    assert finding.fix is not None
    assert "ManageForeignRoutingPolicyRules=no\n" in finding.fix.steps[0].text


def test_networkd_beside_polywan_alone_is_a_note() -> None:
    assert only(box(programs=NETWORKD), "manager-removes-rules").severity == "note"


@pytest.mark.parametrize(
    ("machine", "named"),
    [
        (box(ours=False, rules=(HAND_MADE,), programs=replace(NETWORKD, running=frozenset({"NetworkManager"}))), False),
        (box(ours=False, rules=(HAND_MADE,), programs=replace(NETWORKD, managed=frozenset())), False),
        (box(ours=False, rules=(replace(HAND_MADE, protocol=4),), programs=NETWORKD), False),
        (replace(box(ours=False, rules=(HAND_MADE,), programs=NETWORKD), egresses=LINES[:1]), False),
        (box(programs=saying("[Network]\nManageForeignRoutingPolicyRules=no\n")), False),
        (box(programs=saying("[DHCPv4]\nManageForeignRoutingPolicyRules=no\n")), True),
        (box(programs=saying("[Network]\n#ManageForeignRoutingPolicyRules=no\n")), True),
        (box(programs=saying(*(f"[Network]\nManageForeignRoutingPolicyRules = {v}" for v in ("no", "yes")))), True),
        (box(programs=saying(*(f"[Network]\nManageForeignRoutingPolicyRules = {v}" for v in ("yes", "0")))), False),
    ],
)
def test_networkd_is_named_only_where_it_removes_something(machine: Box, named: bool) -> None:
    assert bool(found(machine, "manager-removes-rules")) is named


# ---- ruleset-flusher

NFT_CONF = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}\n"
MARKS = rules_of(SetMark("packet", 1, WHOLE))


def files(texts: dict[str, str], *, enabled: bool = True, boots: bool = True) -> ProgramFacts:
    units = frozenset({"nftables.service"}) if enabled else frozenset()
    return ProgramFacts(boots=boots, enabled=units, files=texts)


def test_a_rule_file_that_flushes_everything_is_a_note_beside_polywan() -> None:
    finding = only(box(programs=files({"/etc/nftables.conf": NFT_CONF})), "ruleset-flusher")
    assert (finding.severity, finding.evidence) == ("note", ("/etc/nftables.conf:3: flush ruleset",))


def test_a_rule_file_that_takes_marks_made_by_hand_is_a_warning() -> None:
    finding = only(box(MARKS, ours=False, programs=files({"/etc/nftables.conf": NFT_CONF})), "ruleset-flusher")
    assert finding.severity == "warning"
    assert "(iptables, table ip mangle)" in finding.what


def test_a_cron_job_that_empties_the_table_of_marks_is_a_warning() -> None:
    job = {"/etc/cron.d/fw": "* * * * * root iptables -t mangle -F\n"}
    assert only(box(MARKS, ours=False, programs=files(job)), "ruleset-flusher").evidence == (
        "/etc/cron.d/fw:1: * * * * * root iptables -t mangle -F",
    )


NFT_MARKS = replace(MARKS, program="nftables", family="inet", name="wan")
LEGACY: Program = "iptables-legacy"


@pytest.mark.parametrize(
    "machine",
    [
        box(programs=files({"/etc/nftables.conf": NFT_CONF}, enabled=False)),
        box(programs=files({"/etc/nftables.conf": NFT_CONF}, boots=False)),
        box(programs=files({"/etc/nftables.conf": "# flush ruleset\nflush table inet filter\n"})),
        box(MARKS, ours=False, programs=files({"/etc/nftables.conf": NFT_CONF + 'include "/etc/nftables/*.nft"\n'})),
        box(NFT_MARKS, ours=False, programs=files({"/etc/nftables.conf": NFT_CONF + "table inet wan {\n}\n"})),
        box(replace(MARKS, program=LEGACY), ours=False, programs=files({"/etc/nftables.conf": NFT_CONF})),
        box(
            MARKS,
            ours=False,
            programs=files(
                {"/etc/rc.local": "iptables -t mangle -F\niptables -t mangle -A PREROUTING -j MARK --set-mark 1"}
            ),
        ),
        box(MARKS, ours=False, programs=files({"/etc/rc.local": "iptables -F; iptables -t nat -F\n"})),
        box(TAILSCALE, ours=False, programs=files({"/etc/nftables.conf": NFT_CONF})),
        box(MARKS, ours=False, programs=files({"/etc/rc.local": "ip6tables -t mangle -F\n"})),
    ],
)
def test_a_file_that_takes_nothing_away_is_not_named(machine: Box) -> None:
    assert found(machine, "ruleset-flusher") == []


def test_a_script_that_flushes_counts_without_the_unit() -> None:
    script = box(programs=files({}, enabled=False), scripts={"/etc/ppp/ip-up.d/fw": "#!/bin/sh\nnft flush ruleset\n"})
    assert only(script, "ruleset-flusher").evidence == ("/etc/ppp/ip-up.d/fw:2: nft flush ruleset",)


# ---- foreign-offload

FW4 = replace(
    rules_of(Offload("ft"), program="nftables", family="inet", name="fw4", chain="forward"),
    flowtables=(Flowtable("ft", ("lan0", "wan1", "wan2")),),
)


def test_a_flowtable_with_an_uplink_is_named_with_the_setting_that_ends_it() -> None:
    finding = only(box(FW4), "foreign-offload")
    assert (finding.severity, "wan1 and wan2" in finding.what) == ("warning", True)
    assert "uci set firewall.@defaults[0].flow_offloading=0" in how(finding)
    assert only(box(FW4, ours=False), "foreign-offload").severity == "note"
    assert "NftablesFlowtable=off" in how(only(box(replace(FW4, name="firewalld")), "foreign-offload"))


def test_flow_offload_of_iptables_names_no_devices_and_counts_for_all() -> None:
    assert "FLOWOFFLOAD" in how(only(box(rules_of(Offload(), chain="FORWARD", name="filter")), "foreign-offload"))


# ---- two-balancers


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (box(replace(MWAN3, chains=(Chain("mwan3_hook", rules=(Rule("x"),)),))), "mwan3"),
        (box(programs=ProgramFacts(running=frozenset({"foolsm"}))), "Net-ISP-Balance"),
        (box(BY_TURNS, rules=(rule(300, 999, mark=(2, WHOLE)),)), "a set of rules made by hand"),
        (box(rules_of(chain="wlb_mangle_prerouting", name="vyos_wanloadbalance", program="nftables")), "VyOS"),
    ],
)
def test_another_balancer_beside_polywan_is_named(machine: Box, name: str) -> None:
    finding = only(machine, "two-balancers")
    assert (finding.severity, finding.what.startswith(name)) == ("warning", True)


def test_two_other_balancers_are_named() -> None:
    machine = box(MWAN3, ours=False, programs=ProgramFacts(running=frozenset({"pingu", "mwan3track"})))
    assert only(machine, "two-balancers").what == "mwan3 and pingu choose lines at the same time"


# ---- vpn-takes-default


@pytest.mark.parametrize("ours", [True, False])
def test_a_tunnel_that_takes_everything_is_a_note_with_how_to_exempt_a_network(ours: bool) -> None:
    finding = only(box(rules=WG_RULES, ours=ours), "vpn-takes-default")
    assert (finding.severity, finding.what) == ("note", "wg-quick takes all IPv4 to the Internet: it leaves by tun0")
    assert "`ip -4 rule add from NETWORK lookup main priority 32764`" in how(finding)
    assert found(box(rules=WG_RULES, ours=ours), "rules-before-ours") == []


def test_both_halves_of_the_internet_by_a_tunnel_are_a_note() -> None:
    halves = tuple(WideRoute(ip_network(half), "tun0") for half in ("0.0.0.0/1", "128.0.0.0/1"))
    finding = only(box(observed={"parts": halves}), "vpn-takes-default")
    assert finding.evidence == ("ip route: 0.0.0.0/1 dev tun0 and 128.0.0.0/1 dev tun0",)


def test_mains_default_by_a_tunnel_is_a_note() -> None:
    best = DefaultRoute(family=Family.V4, link="tun0", via=None, metric=1)
    machine = box(observed={"defaults": (best, *world(2).defaults)})
    assert "tun0" in only(machine, "vpn-takes-default").what
