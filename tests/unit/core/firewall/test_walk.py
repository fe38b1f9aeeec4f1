"""Where a packet ends, in the order in which the kernel asks the rules."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from polywan.core.firewall.iptables import parse
from polywan.core.firewall.model import Firewall
from polywan.core.firewall.walk import Passing, outcome
from polywan.core.net import Family

PACKET = Passing(
    family=Family.V4,
    in_device="lan0",
    out_device="wan1",
    source=ip_address("192.168.15.10"),
    destination=ip_address("203.0.113.1"),
    protocol="tcp",
    port=443,
)


def verdict(rules: str, packet: Passing = PACKET, policy: str = "ACCEPT") -> str:
    text = f"*filter\n:FORWARD {policy} [0:0]\n:sub - [0:0]\n:more - [0:0]\n{rules}\nCOMMIT\n"
    return outcome(Firewall(parse(text, Family.V4, "iptables")), packet).verdict


@pytest.mark.parametrize(
    ("rules", "policy", "wanted"),
    [
        ("", "ACCEPT", "accept"),
        ("", "DROP", "drop"),
        ("-A FORWARD -i lan0 -o wan1 -j ACCEPT", "DROP", "accept"),
        ("-A FORWARD -i lan0 -o wan2 -j ACCEPT", "DROP", "drop"),
        ("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "DROP", "drop"),
        ("-A FORWARD -p tcp -j REJECT", "ACCEPT", "reject"),
        ("-A FORWARD -m limit --limit 5/sec -j ACCEPT", "DROP", "unknown"),
        ("-A FORWARD -m limit --limit 5/sec -j ACCEPT\n-A FORWARD -j ACCEPT", "DROP", "accept"),
        ("-A FORWARD -j sub\n-A sub -i lan0 -j RETURN\n-A sub -j DROP", "ACCEPT", "accept"),
        ("-A FORWARD -j sub\n-A sub -j RETURN\n-A FORWARD -j DROP", "ACCEPT", "drop"),
        ("-A FORWARD -g sub\n-A FORWARD -j DROP\n-A sub -i wan9 -j DROP", "ACCEPT", "accept"),
        ("-A FORWARD -j sub\n-A sub -j more\n-A more -j ACCEPT", "DROP", "accept"),
        ("-A FORWARD -j sub\n-A sub -j sub", "ACCEPT", "accept"),
        ("-A FORWARD -m set --match-set bad src -j DROP", "ACCEPT", "unknown"),
        ("-A FORWARD -j nowhere", "DROP", "drop"),
    ],
)
def test_a_packet_ends_where_its_rules_say(rules: str, policy: str, wanted: str) -> None:
    assert verdict(rules, policy=policy) == wanted


def test_what_the_question_leaves_open_is_not_decided() -> None:
    rules = "-A FORWARD -p tcp -m tcp --dport 22 -j DROP"

    assert verdict(rules, replace(PACKET, port=None)) == "unknown"
    assert verdict(rules, replace(PACKET, protocol="udp", port=None)) == "accept"


def test_a_packet_of_the_other_family_does_not_pass() -> None:
    packet = replace(PACKET, family=Family.V6, source=None, destination=None)

    assert verdict("-A FORWARD -j DROP", packet) == "accept"


def test_the_rule_that_decides_is_named() -> None:
    text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -o wan1 -j DROP\nCOMMIT\n"
    found = outcome(Firewall(parse(text, Family.V4, "iptables")), PACKET)

    assert found.text == "chain FORWARD of iptables' table filter: -A FORWARD -o wan1 -j DROP"
