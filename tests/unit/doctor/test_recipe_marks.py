"""Marks that are chosen by hand: the rules of the recipes as they are written, what mends them, and look-alikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from polywan.api.doctor import Finding
from polywan.core.trace.route_query import RouteAnswer
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes import bare_masquerade, last_writer_wins, nth_per_packet, restore_without_direction
from support.recipe_boxes import address, box_of, default, fwmark, link, saved

NTH = (
    "-A PREROUTING -s 10.8.8.0/24 -m state --state NEW {guard}-m statistic --mode nth --every {every} --packet {packet}"
)
SET = " -j CONNMARK --set-xmark {mark:#x}/0xffffffff\n"
RESTORE = "".join(
    f"-A PREROUTING -m connmark --mark {mark:#x} -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n"
    for mark in (1, 2)
)
GUARD = "-m connmark --mark 0x0 "


def nth(every: int, packet: int, mark: int, guard: str = "") -> str:
    return NTH.format(guard=guard, every=every, packet=packet) + SET.format(mark=mark)


RECIPE_0 = nth(2, 0, 1) + nth(2, 1, 2) + RESTORE
LADDER = nth(2, 0, 1, GUARD) + NTH.split(" {guard}", maxsplit=1)[0] + f" {GUARD}" + SET.format(mark=2) + RESTORE

RECIPE_1 = """\
-A OUTPUT -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A OUTPUT -m mark ! --mark 0x0 -j ACCEPT
-A OUTPUT -j MARK --set-xmark 0x1/0xffffffff
-A OUTPUT -m statistic --mode nth --every 2 --packet 0 -j MARK --set-xmark 0x2/0xffffffff
-A OUTPUT -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
"""
RECIPE_4 = """\
:load-in - [0:0]
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff
-A PREROUTING -m mark ! --mark 0x0/0xff -j RETURN
-A PREROUTING -m mark --mark 0x0/0xff -j load-in
-A PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
-A load-in -m mark --mark 0x0/0xff -m statistic --mode random --probability 0.50000000000 -j MARK --set-xmark 0x2/0xff
-A load-in -m mark --mark 0x0/0xff -j MARK --set-xmark 0x1/0xff
"""
MWAN3 = """\
:hook - [0:0]
:rules - [0:0]
-A PREROUTING -j hook
-A OUTPUT -j hook
-A hook -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00
-A hook -m mark --mark 0x0/0x3f00 -j rules
-A hook -j CONNMARK --save-mark --nfmask 0x3f00 --ctmask 0x3f00
-A rules -m mark --mark 0x0/0x3f00 -m statistic --mode random --probability 0.333 -j MARK --set-xmark 0x100/0x3f00
-A rules -m mark --mark 0x0/0x3f00 -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x200/0x3f00
-A rules -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x300/0x3f00
"""


def pool(mangle: str, nat: str = "", **more: Any) -> Box:
    """Return a box with two dialled lines, whose marks are 1 and 2, and VPN clients behind it."""
    base: dict[str, Any] = {
        "rules": (fwmark(1, 201), fwmark(2, 202), *(fwmark(n << 8, 210 + n, 0x3F00) for n in (1, 2, 3))),
        "defaults": (default("eth0", via="192.0.2.1"), default("ppp0", 201), default("ppp1", 202)),
        "firewall": saved(mangle, nat),
    }
    addresses = [("tun0", "10.8.8.1/24"), ("ppp0", "10.1.1.10/32"), ("ppp1", "10.2.1.10/32"), ("eth0", "192.0.2.9/24")]
    links = [link(number, name) for number, name in enumerate(("eth0", "tun0", "ppp0", "ppp1"), 2)]
    links += more.pop("links", [])
    more["addresses"] = tuple(address(*pair) for pair in [*addresses, *more.pop("networks", [])])
    return box_of(*links, **{**base, **more})


def found(check: Callable[[Box], Iterator[Finding]], box: Box) -> list[Finding]:
    return list(check(box))


class TestNthPerPacket:
    def test_the_first_recipe_chooses_for_every_new_packet(self) -> None:
        (finding,) = found(nth_per_packet.check, pool(RECIPE_0))

        assert finding.severity == "warning"
        assert "chain PREROUTING of table ip mangle" in finding.what
        assert "--packet 1" in finding.evidence[1]
        assert finding.fix is not None
        start = "iptables -t mangle {} -s 10.8.8.0/24 -m state --state NEW {} -j CONNMARK --set-xmark {:#x}/0xffffffff"
        assert [" ".join(step.command) for step in finding.fix.steps] == [
            start.format("-I PREROUTING 1", "-m connmark --mark 0x0 -m statistic --mode nth --every 2 --packet 0", 1),
            start.format("-I PREROUTING 3", "-m connmark --mark 0x0", 2),
            start.format("-D PREROUTING", "-m statistic --mode nth --every 2 --packet 0", 1),
            start.format("-D PREROUTING", "-m statistic --mode nth --every 2 --packet 1", 2),
        ]

    def test_more_packets_than_connections_are_evidence(self) -> None:
        counted = "".join(f"[{9 + i}:900] {line}\n" for i, line in enumerate(RECIPE_0.splitlines()))
        masquerade = "[12:700] -A POSTROUTING -s 10.8.8.0/24 -j MASQUERADE"

        (finding,) = found(nth_per_packet.check, pool(counted, masquerade))

        assert "19 packets chosen for, 12 connections translated" in finding.evidence

    def test_a_choice_that_no_connection_keeps_is_a_fault(self) -> None:
        drawn = "-A PREROUTING -m statistic --mode random --probability 0.5 -j MARK --set-xmark {}/0xffffffff\n"

        (finding,) = found(nth_per_packet.check, pool(drawn.format("0x1")))

        assert finding.severity == "fault"

    @pytest.mark.parametrize(
        "mangle",
        [
            LADDER,
            RECIPE_1,
            RECIPE_4,
            MWAN3,
            "-A PREROUTING -m connmark ! --mark 0x0 -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff\n"
            "-A PREROUTING -m mark ! --mark 0x0 -j ACCEPT\n" + RECIPE_0,
            RECIPE_0.replace("-m state", "-m geoip --source-country DE -m state"),
            RECIPE_0.replace("--set-xmark 0x1/", "--set-xmark 0x71/").replace("--set-xmark 0x2/", "--set-xmark 0x72/"),
            "-A PREROUTING -m statistic --mode nth --every 10 --packet 0 -j NFLOG",
            "-A PREROUTING -m statistic --mode random --probability 0.1 -j DROP",
            "-A PREROUTING -s 10.8.8.0/24 -j MARK --set-xmark 0x1/0xffffffff",
        ],
        ids=["guarded", "1", "4", "mwan3", "accepted", "unknown", "for-tc", "sampled", "lossy", "fixed"],
    )
    def test_a_choice_for_each_connection_is_not_found(self, mangle: str) -> None:
        assert found(nth_per_packet.check, pool(mangle)) == []


CASCADE = (
    "-A PREROUTING {guard}-m statistic --mode random --probability {chance} -j MARK --set-xmark {mark}/0xffffffff\n"
)
KEPT = "-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n"
KEPT += "-A PREROUTING -m mark ! --mark 0x0 -j ACCEPT\n"
SAVED = "-A PREROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n"
UNMARKED = "-m mark --mark 0x0 "


def cascade(*chances: tuple[float, int], guard: str = UNMARKED) -> str:
    rules = "".join(CASCADE.format(guard=guard, chance=chance, mark=hex(mark)) for chance, mark in chances)
    return KEPT + rules + SAVED


class TestLastWriterWins:
    def test_halves_of_what_is_unmarked_are_a_half_a_quarter_and_nothing(self) -> None:
        (finding,) = found(last_writer_wins.check, pool(nth(2, 0, 1, GUARD) + nth(2, 1, 2, GUARD) + RESTORE))

        assert "give mark 0x1 50%, mark 0x2 25%, no mark 25%" in finding.what
        assert "they ask for mark 0x1 50%, mark 0x2 50%" in finding.what
        assert finding.fix is not None
        assert [step.command[3] for step in finding.fix.steps] == ["-I", "-D"]
        assert finding.fix.steps[0].command[5] == "2"
        assert "--every" not in finding.fix.steps[0].command

    def test_a_ladder_whose_rules_overwrite_each_other_is_found(self) -> None:
        rules = nth(3, 0, 0x100) + nth(2, 0, 0x200) + RESTORE.replace("0x1 ", "0x100 ").replace("0x2 ", "0x200 ")

        (finding,) = found(last_writer_wins.check, pool(rules))

        assert "mark 0x100 17%, mark 0x200 50%" in finding.what

    def test_a_mark_that_is_overwritten_every_time_is_a_fault(self) -> None:
        rules = cascade((0.7, 1), guard="") + "-A PREROUTING -j MARK --set-xmark 0x2/0xffffffff\n"

        (finding,) = found(last_writer_wins.check, pool(rules))

        assert finding.severity == "fault"
        assert "mark 0x1 never" in finding.what

    def test_parts_that_make_a_whole_while_some_get_no_mark_are_found_when_main_is_none_of_them(self) -> None:
        one_of_them = (default("ppp0"), default("ppp0", 201), default("ppp1", 202))
        halves = cascade((0.5, 1), (0.5, 2))

        assert len(found(last_writer_wins.check, pool(halves, defaults=one_of_them))) == 1
        assert found(last_writer_wins.check, pool(halves)) == []

    @pytest.mark.parametrize(
        "mangle",
        [
            RECIPE_0,
            LADDER,
            RECIPE_1,
            RECIPE_4,
            MWAN3,
            cascade((0.5, 1), (1.0, 2)),
            cascade((0.3, 1), (0.4, 2)),
            nth(3, 0, 1) + nth(3, 1, 1) + nth(3, 2, 2) + RESTORE,
            nth(3, 0, 0x100, GUARD) + nth(2, 0, 0x200, GUARD),
            RECIPE_1.replace(
                "-A OUTPUT -j CONNMARK --save",
                "-A OUTPUT -m statistic --mode nth --every 2 --packet 1 -j MARK --set-xmark 0x1/0xffffffff\n"
                "-A OUTPUT -j CONNMARK --save",
            ),
        ],
        ids=["0", "ladder", "1", "4", "mwan3", "rest", "uneven", "weights", "guarded", "both"],
    )
    def test_shares_that_come_out_as_asked_are_not_found(self, mangle: str) -> None:
        assert found(last_writer_wins.check, pool(mangle)) == []


def answered(box: Box, *answers: RouteAnswer) -> Box:
    questions = restore_without_direction.questions(box)
    return replace(box, settings={"net/ipv4/ip_forward": "1"}, answers=dict(zip(questions, answers, strict=True)))


def test_a_host_that_does_not_forward_has_no_answers_to_forward() -> None:
    box = answered(pool(RECIPE_0), BACK, BACK)

    assert found(restore_without_direction.check, replace(box, settings={"net/ipv4/ip_forward": "0"})) == []


TO_TUN0 = RouteAnswer(kind="unicast", link="tun0")
BACK = RouteAnswer(kind="unicast", link="ppp0")


class TestRestoreWithoutDirection:
    def test_an_answer_that_goes_back_to_the_uplink_is_found(self) -> None:
        (finding,) = found(restore_without_direction.check, answered(pool(RECIPE_0), BACK, TO_TUN0))

        assert "tun0 (10.8.8.0/24) that come in by ppp0 are marked" in finding.what
        assert "leads by ppp0, not by tun0" in finding.evidence[0]
        assert finding.fix is not None
        assert [" ".join(step.command) for step in finding.fix.steps] == [
            "ip route replace 10.8.8.0/24 dev tun0 table 201"
        ]

    def test_an_answer_that_the_table_refuses_is_found(self) -> None:
        refused = RouteAnswer(kind="unreachable")

        assert len(found(restore_without_direction.check, answered(pool(RECIPE_0), refused, refused))) == 1

    @pytest.mark.parametrize(
        ("mangle", "answer"),
        [
            (RECIPE_0, TO_TUN0),
            (RECIPE_0, RouteAnswer(kind="blackhole")),
            (RECIPE_0.replace("-m connmark", "-m conntrack --ctdir ORIGINAL -m connmark"), BACK),
            (RECIPE_0.replace("-m connmark", "-i tun0 -m connmark"), BACK),
            (RECIPE_0.replace("10.8.8.0/24", "192.168.7.0/24"), BACK),
            (RESTORE, BACK),
        ],
        ids=["route", "rp-filter", "direction", "device", "other-network", "no-choice"],
    )
    def test_an_answer_that_arrives_or_has_no_mark_is_not(self, mangle: str, answer: RouteAnswer) -> None:
        assert found(restore_without_direction.check, answered(pool(mangle), answer, answer)) == []


BARE = "-A POSTROUTING -s 10.8.8.0/24 -j MASQUERADE"
SECOND = {"links": [link(9, "lan0")], "networks": [("lan0", "192.168.1.1/24")]}


class TestBareMasquerade:
    def test_what_one_network_sends_to_another_is_translated(self) -> None:
        (finding,) = found(bare_masquerade.check, pool(RECIPE_0, BARE, **SECOND))

        assert finding.severity == "warning"
        assert "tun0 (10.8.8.0/24) to lan0 (192.168.1.0/24)" in finding.what
        assert finding.fix is not None
        assert finding.fix.steps == ()
        assert "iptables -t nat -I POSTROUTING 1 -s 10.8.8.0/24 -d 192.168.1.0/24 -j RETURN" in finding.fix.how

    def test_with_one_network_it_is_worth_a_note(self) -> None:
        assert [f.severity for f in found(bare_masquerade.check, pool(RECIPE_0, BARE))] == ["note"]

    @pytest.mark.parametrize(
        ("nat", "more"),
        [
            ("-A POSTROUTING -s 10.8.8.0/24 -o ppp0 -j MASQUERADE\n-A POSTROUTING -o ppp1 -j MASQUERADE", SECOND),
            ("-A POSTROUTING -s 10.8.8.0/24 -d 192.168.0.0/16 -j RETURN\n" + BARE, SECOND),
            ("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", SECOND),
            ("-A POSTROUTING -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE", SECOND),
            ("-A POSTROUTING -m set --match-set inside src -j MASQUERADE", SECOND),
            ("-A POSTROUTING -m mark --mark 0x1 -j MASQUERADE", {}),
            ("-A POSTROUTING -s 10.8.8.0/24 -j SNAT --to-source 10.1.1.10", {}),
            (BARE, {"rules": (), "defaults": (default("eth0", via="192.0.2.1"),)}),
        ],
        ids=["devices", "exempt", "docker", "libvirt", "set", "mark", "snat", "one-line"],
    )
    def test_what_is_between_networks_and_stays_as_it_is_is_not_found(self, nat: str, more: dict[str, Any]) -> None:
        assert found(bare_masquerade.check, pool("", nat, **more)) == []
