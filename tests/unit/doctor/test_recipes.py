"""Rules made by hand: what is wrong with them is found, and what only looks like it is not."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network, ip_network

import pytest

from polywan.core.firewall import iptables, nftables
from polywan.core.firewall.model import Firewall
from polywan.core.net import Family, RulePriority, TableId
from polywan.core.plan.lans import Lan
from polywan.core.trace.route_query import RouteAnswer
from polywan.core.world.foreign_routing import WHOLE, Destination, ForeignRule
from polywan.core.world.observed import DefaultRoute, Link, Observed
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes import (
    bare_masquerade,
    emptied_table,
    equalize,
    hash_policy,
    last_writer_wins,
    lost_multipath,
    nth_per_packet,
    restore_without_direction,
    stale_copied_table,
    stale_lock,
)
from polywan.doctor.checks.recipes.choices import choices
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.locks import Lock
from polywan.doctor.facts.routes import Hop, TableRoute

NTH = (
    "-A PREROUTING -m state --state NEW {2}-m statistic --mode nth --every {0} --packet {1} -j CONNMARK --set-mark {3}"
)
LATE = (
    "-A PREROUTING -m state --state NEW -m statistic --mode nth --every {0} --packet {1} {2}-j CONNMARK --set-mark {3}"
)
UNMARKED = "-m connmark --mark 0 "
LAN = Lan("lan0", IPv4Network("192.168.15.0/24"), IPv4Interface("192.168.15.1/24"))
VPN = Lan("tun0", IPv4Network("10.8.8.0/24"), IPv4Interface("10.8.8.1/24"))
BY_HAND = (Egress("ppp0", "ppp0", Family.V4, 201, 1), Egress("ppp1", "ppp1", Family.V4, 202, 2))


def rules(*lines: str, table: str = "mangle", chain: str = "PREROUTING") -> Firewall:
    text = f"*{table}\n:{chain} ACCEPT [0:0]\n:other - [0:0]\n{chr(10).join(lines)}\nCOMMIT\n"
    return Firewall(iptables.parse(text, Family.V4, "iptables"))


def nft(*expressions: object) -> Firewall:
    chain = {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "prerouting", "prio": -150}
    made = [{"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 9, "expr": [*expressions]}}]
    listing = {"nftables": [{"table": {"family": "inet", "name": "t"}}, {"chain": chain}, *made]}
    return Firewall(nftables.parse(listing))


class TestNthPerPacket:
    def test_a_choice_that_meets_connections_with_a_mark_is_found_and_replaced(self) -> None:
        (finding,) = nth_per_packet.check(Box(firewall=rules(NTH.format(2, 0, "", 1), NTH.format(2, 1, "", 2))))

        assert len(finding.evidence) == 2
        assert finding.fix is not None
        command = " ".join(finding.fix.steps[1].command)
        assert command.startswith("iptables-nft -t mangle -R PREROUTING 2 -m state --state NEW")
        assert command.endswith("-m connmark --mark 0x0 -j CONNMARK --set-mark 2")

    @pytest.mark.parametrize(
        "lines",
        [
            [NTH.format(2, 0, UNMARKED, 1)],
            ["-A PREROUTING -m connmark ! --mark 0 -j RETURN", NTH.format(2, 0, "", 1)],
            ["-A PREROUTING -m connmark --mark 0 -j other", NTH.format(2, 0, "", 1).replace("PREROUTING", "other")],
            ["-A PREROUTING -m statistic --mode random --probability 0.5 -j LOG"],
            ["-A PREROUTING -s 10.8.8.0/24 -j MARK --set-mark 1"],
        ],
    )
    def test_what_chooses_once_or_not_at_all_is_fine(self, lines: list[str]) -> None:
        assert list(nth_per_packet.check(Box(firewall=rules(*lines)))) == []

    def test_a_map_of_nft_that_chooses_for_every_packet_is_found(self) -> None:
        key = {"numgen": {"mode": "inc", "mod": 2, "offset": 0}}
        chosen = {"map": {"key": key, "data": {"set": [[0, 1], [1, 2]]}}}
        write = {"mangle": {"key": {"ct": {"key": "mark"}}, "value": chosen}}
        unmarked = {"match": {"op": "==", "left": {"ct": {"key": "mark"}}, "right": 0}}

        assert len(list(nth_per_packet.check(Box(firewall=nft(write))))) == 1
        assert list(nth_per_packet.check(Box(firewall=nft(unmarked, write)))) == []


class TestLastWriterWins:
    @pytest.mark.parametrize(
        ("lines", "wanted"),
        [
            ([(2, 0, "", 1), (2, 1, "", 2)], {1: 0.5, 2: 0.5}),
            ([(2, 0, UNMARKED, 1), (2, 0, UNMARKED, 2)], {1: 0.5, 2: 0.25, 0: 0.25}),
            ([(2, 0, UNMARKED, 1), (2, 1, UNMARKED, 2)], {1: 0.5, 2: 0.25, 0: 0.25}),
            ([(3, 0, "", 1), (2, 0, "", 2), (1, 0, "", 3)], {3: 1.0}),
            ([(3, 0, UNMARKED, 1), (2, 0, UNMARKED, 2), (1, 0, UNMARKED, 3)], {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}),
        ],
    )
    def test_shares_follow_from_what_reaches_each_rule(
        self, lines: list[tuple[int, int, str, int]], wanted: dict[int, float]
    ) -> None:
        box = Box(firewall=rules(*(NTH.format(*line) for line in lines)))

        assert last_writer_wins.shares(list(choices(box))) == pytest.approx(wanted)

    def test_a_condition_behind_the_statistic_does_not_keep_it_from_counting(self) -> None:
        box = Box(firewall=rules(*(LATE.format(2, number, UNMARKED, number + 1) for number in (0, 1))))

        assert last_writer_wins.shares(list(choices(box))) == pytest.approx({1: 0.5, 2: 0.5})

    def test_a_ladder_that_overwrites_is_found_and_one_that_does_not_is_fine(self) -> None:
        ladder = [(3, 0, 1), (2, 0, 2), (1, 0, 3)]
        wrong = rules(*(NTH.format(every, packet, "", mark) for every, packet, mark in ladder))
        right = rules(*(NTH.format(every, packet, UNMARKED, mark) for every, packet, mark in ladder))

        (finding,) = last_writer_wins.check(Box(firewall=wrong))
        assert "mark 0x1 0 %" in finding.evidence[-1]
        assert list(last_writer_wins.check(Box(firewall=right))) == []

    def test_equal_turns_behind_each_other_leave_connections_without_a_mark(self) -> None:
        lines = (NTH.format(2, 0, UNMARKED, 1), NTH.format(2, 0, UNMARKED, 2))

        (finding,) = last_writer_wins.check(Box(firewall=rules(*lines)))
        assert "no mark 25 %" in finding.evidence[-1]


def by_mark(table: int, mark: int = 1) -> ForeignRule:
    return ForeignRule(
        family=Family.V4, priority=RulePriority(100), table=TableId(table), mark=(mark, WHOLE), protocol=4
    )


GIVES_1 = rules(NTH.format(2, 0, UNMARKED, 1))


class TestEmptiedTable:
    def test_a_mark_that_leads_to_an_empty_table_is_found(self) -> None:
        box = Box(observed=Observed(links={}, rules=(by_mark(201),)), firewall=GIVES_1)

        (finding,) = emptied_table.check(box)
        assert "table 201" in finding.what

    @pytest.mark.parametrize(
        "observed",
        [
            Observed(links={}, rules=(by_mark(201, 7),)),
            Observed(links={}, rules=(by_mark(254),)),
            Observed(
                links={},
                rules=(by_mark(201),),
                tables={TableId(201): (Destination(prefix=IPv4Network("0.0.0.0/0"), kind="unreachable"),)},
            ),
            Observed(
                links={},
                rules=(by_mark(201),),
                defaults=(DefaultRoute(family=Family.V4, link="ppp0", via=None, table=TableId(201)),),
            ),
        ],
        ids=["a mark that nobody gives", "main", "refused on purpose", "a default"],
    )
    def test_what_leads_somewhere_or_is_not_used_is_fine(self, observed: Observed) -> None:
        assert list(emptied_table.check(Box(observed=observed, firewall=GIVES_1))) == []


class TestRestoreWithoutDirection:
    RESTORE = "-A PREROUTING {}-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"

    def box(self, condition: str, link: str | None) -> Box:
        box = Box(egresses=BY_HAND[1:], lans=(LAN,), firewall=rules(self.RESTORE.format(condition)))
        answer = RouteAnswer(kind="unicast" if link else "unreachable", link=link)
        return Box(
            egresses=box.egresses,
            lans=box.lans,
            firewall=box.firewall,
            answers=dict.fromkeys(restore_without_direction.questions(box), answer),
        )

    @pytest.mark.parametrize("link", ["ppp1", None])
    def test_answers_that_their_mark_leads_astray_are_found(self, link: str | None) -> None:
        (finding,) = restore_without_direction.check(self.box("", link))

        assert finding.fix is not None
        assert "suppress_prefixlength" in finding.fix.steps[0].command

    @pytest.mark.parametrize(
        ("condition", "link"),
        [
            ("", "lan0"),
            ("-i lan0 ", "ppp1"),
            ("! -i ppp+ ", "ppp1"),
            ("-s 192.168.15.0/24 ", "ppp1"),
            ("-m conntrack --ctdir ORIGINAL ", "ppp1"),
            ("-m connmark --mark 1 ", "ppp1"),
        ],
    )
    def test_answers_that_arrive_or_are_not_marked_are_fine(self, condition: str, link: str) -> None:
        assert list(restore_without_direction.check(self.box(condition, link))) == []


def default(*hops: str, nexthop: int = 0, table: str = "main") -> TableRoute:
    made = tuple(Hop(device, "", 1, alive=True) for device in hops)
    return TableRoute(Family.V4, table, Family.V4.default, "unicast", "static", "global", 0, "", nexthop, made)


def world(*links: tuple[str, str]) -> Observed:
    made = (Link(index=n, name=name, up=True, carrier=True, kind=kind) for n, (name, kind) in enumerate(links, 1))
    return Observed(links={link.name: link for link in made})


class TestMultipath:
    def test_a_default_over_sessions_is_in_danger(self) -> None:
        box = Box(observed=world(("ppp0", "ppp"), ("ppp1", "ppp")), routes=(default("ppp0", "ppp1"),))

        (finding,) = lost_multipath.check(box)
        assert finding.fix is not None
        assert [" ".join(step.command) for step in finding.fix.steps] == [
            "ip -4 nexthop replace id 101 dev ppp0",
            "ip -4 nexthop replace id 102 dev ppp1",
            "ip nexthop replace id 100 group 101,1/102,1",
            "ip -4 route replace default nhid 100 table main",
        ]

    def test_nexthop_objects_and_cards_are_fine(self) -> None:
        links = world(("ppp0", "ppp"), ("ppp1", "ppp"), ("eth0", ""), ("eth1", ""))
        for route in (default("ppp0", "ppp1", nexthop=100), default("eth0", "eth1"), default("ppp0")):
            assert list(lost_multipath.check(Box(observed=links, routes=(route,)))) == []

    def test_one_that_a_script_makes_and_that_is_gone_is_found(self) -> None:
        line = "ip route add default nexthop dev ppp0 weight 1 nexthop dev ppp1 weight 1"
        box = Box(routes=(default("ppp0"),), scripts={"/etc/rc.local": f"# {line}\n{line}\n"})

        (finding,) = lost_multipath.check(box)
        assert finding.evidence[0].startswith("/etc/rc.local:2: ")

    @pytest.mark.parametrize(("policy", "number"), [("0", 1), ("1", 0), ("2", 0)])
    def test_a_choice_by_addresses_alone_is_found(self, policy: str, number: int) -> None:
        settings = {"net/ipv4/fib_multipath_hash_policy": policy}

        assert len(list(hash_policy.check(Box(routes=(default("a", "b"),), settings=settings)))) == number
        assert list(hash_policy.check(Box(routes=(default("a"),), settings=settings))) == []


def test_equalize_is_found_in_a_line_of_a_script_and_not_in_a_comment() -> None:
    line = "ip route add default equalize nexthop dev ppp0 nexthop dev ppp1"

    (finding,) = equalize.check(Box(scripts={"/etc/ppp/ip-up.local": f"#!/bin/sh\n{line}\n# {line}\n"}))
    assert finding.evidence == (f"/etc/ppp/ip-up.local:2: {line}",)


def connected(network: str, device: str, table: str = "main") -> TableRoute:
    hops = (Hop(device, "", 1, alive=True),)
    return TableRoute(Family.V4, table, ip_network(network), "unicast", "static", "link", 0, "", 0, hops)


class TestStaleCopies:
    OBSERVED = Observed(
        links={name: Link(index=n, name=name, up=True, carrier=True) for n, name in enumerate(("lan0", "lan1"), 1)},
        rules=(by_mark(201),),
    )

    def test_copies_of_a_network_that_moved_or_was_renumbered_are_found(self) -> None:
        main = (connected("192.168.15.0/24", "lan0"), connected("10.0.0.0/24", "lan1"))
        stale = (connected("192.168.14.0/24", "lan0", "201"), connected("10.0.0.0/24", "lan0", "201"))

        (finding,) = stale_copied_table.check(Box(observed=self.OBSERVED, routes=(*main, *stale)))
        assert len(finding.fix.steps if finding.fix else ()) == 2

    def test_true_copies_and_tables_that_nobody_uses_are_fine(self) -> None:
        main = connected("192.168.15.0/24", "lan0")
        for other in (connected("192.168.15.0/24", "lan0", "201"), connected("192.168.14.0/24", "lan0", "77")):
            assert list(stale_copied_table.check(Box(observed=self.OBSERVED, routes=(main, other)))) == []


@pytest.mark.parametrize(("since", "held", "number"), [(0.0, False, 1), (0.0, True, 0), (9_900.0, False, 0)])
def test_an_old_lock_that_nobody_holds_is_found(since: float, held: bool, number: int) -> None:
    lock = Lock("/var/lock/if-up.ppp0", "/etc/ppp/ip-up.local:3", "while [ -e … ]", since, held, waited_for=True)

    assert len(list(stale_lock.check(Box(locks=(lock,), now=10_000.0)))) == number


class TestBareMasquerade:
    def box(self, rule: str, *lans: Lan, egresses: tuple[Egress, ...] = BY_HAND) -> Box:
        firewall = rules(f"-A POSTROUTING {rule}-j MASQUERADE", table="nat", chain="POSTROUTING")
        return Box(egresses=egresses, lans=lans, firewall=firewall)

    @pytest.mark.parametrize("rule", ["", "-s 10.8.8.0/24 "])
    def test_translation_between_two_networks_is_found(self, rule: str) -> None:
        assert len(list(bare_masquerade.check(self.box(rule, LAN, VPN)))) == 1

    @pytest.mark.parametrize(
        "rule", ["-o ppp0 ", "! -o docker0 ", "-s 10.8.8.0/24 ! -d 192.168.0.0/16 ", "-m mark --mark 1 "]
    )
    def test_what_spares_the_inside_is_fine(self, rule: str) -> None:
        assert list(bare_masquerade.check(self.box(rule, LAN, VPN))) == []

    def test_a_single_network_or_no_marks_is_fine(self) -> None:
        assert list(bare_masquerade.check(self.box("", LAN))) == []
        assert list(bare_masquerade.check(self.box("", LAN, VPN, egresses=()))) == []
