"""Rules of nft and iptables, drawn from seeds and loaded for real: the walk and the packets agree."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from polywan.core.firewall.walk import Passing, outcome
from polywan.core.net import Family
from polywan.doctor.reading import firewall
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from support.doctor import doctor, of, only

if TYPE_CHECKING:
    from support.netns import BuildLab

SEEDS, ROUNDS = range(4), 8
SERVER = SERVERS[Family.V4][0]
PORTS = (1001, 1002, 2001)
COUNT = """table inet seen {
  counter passed { }
  chain post {
    type filter hook postrouting priority 300;
    oifname "wan1" udp dport { 1001, 1002, 2001 } counter name passed
  }
}"""
NFT_MATCHES = (
    'iifname "lan0"',
    'oifname { "wan1", "wan2" }',
    'oifname != "wan1"',
    "udp dport 1001-1999",
    "udp dport { 1001, 2001 }",
    "ip saddr 192.168.15.0/24",
    "ip daddr != 203.0.113.0/24",
    "ct state new",
    "ct state established",
    "meta l4proto udp",
    "meta mark 0",
    "ct mark & 0xff == 1",
    "limit rate 1000/second",
    "ct direction original",
)
MATCHES = (
    "-i lan0",
    "-o wan+",
    "! -o wan1",
    "-p udp -m udp --dport 1001:1999",
    "-p udp -m multiport --dports 1001,2001",
    "-s 192.168.15.0/24",
    "! -d 203.0.113.0/24",
    "-m conntrack --ctstate NEW",
    "-m state --state ESTABLISHED",
    "-p udp",
    "-m mark --mark 0x0",
    "-m connmark --mark 0x1/0xff",
    "-m limit --limit 1000/sec",
    "-m conntrack --ctdir ORIGINAL",
)
DROPPING = """table inet filter {
  chain forward {
    type filter hook forward priority 0;
    oifname "wan1" drop
  }
}"""


@pytest.fixture
def box(lab_of: BuildLab) -> Lab:
    lab = lab_of(1, families=(Family.V4,))
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    lab.router.nft(COUNT)
    return lab


def passed(lab: Lab) -> int:
    listed = lab.router.run(["nft", "list", "counter", "inet", "seen", "passed"]).stdout
    return int(listed.split("packets ")[1].split()[0])


def leaves(lab: Lab, port: int) -> bool:
    """Send a datagram from the LAN and tell whether it left."""
    before = passed(lab)
    with lab.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (str(SERVER), port))
    return passed(lab) > before


def asked(lab: Lab, port: int) -> str:
    words = lab.client.run(["ip", "-4", "-o", "address", "show", "dev", "eth0"]).stdout.split()
    packet = Passing(
        family=Family.V4,
        in_device="lan0",
        out_device="wan1",
        source=ip_interface(words[words.index("inet") + 1]).ip,
        destination=SERVER,
        protocol="udp",
        port=port,
    )
    with lab.router.entered():
        rules, unread = firewall.read()
    assert not unread
    return outcome(rules, packet).verdict


def nft_rules(lab: Lab, chance: random.Random) -> str:
    ends = ("accept", "drop", "return", "jump sub", "goto sub", "counter")
    lines = [f"{' '.join(chance.sample(NFT_MATCHES, chance.randint(0, 2)))} {chance.choice(ends)}" for _ in range(5)]
    below = [f"{chance.choice(NFT_MATCHES)} {chance.choice(ends[:3])}" for _ in range(3)]
    below += ["udp dport vmap { 1001 : accept, 2001 : drop }"] if chance.random() < 0.3 else []
    first = f"type filter hook forward priority {chance.choice((0, 10))}; policy {chance.choice(ends[:2])};"
    chains = {
        "sub": below,
        "one": [first, *lines],
        "two": ["type filter hook forward priority 5; policy accept;", lines[0]],
    }
    body = "".join(f"chain {name} {{\n{chr(10).join(rules)}\n}}\n" for name, rules in chains.items())
    text = f"table inet theirs\ndelete table inet theirs\ntable inet theirs {{\n{body}}}\n"
    lab.router.nft(text)
    return text


def iptables_rules(lab: Lab, chance: random.Random) -> str:
    ends = ("-j ACCEPT", "-j DROP", "-j RETURN", "-j sub", "-g sub")
    lines = [f"-A FORWARD {chance.choice(MATCHES)} {chance.choice(ends)}" for _ in range(5)]
    below = [f"-A sub {chance.choice(MATCHES)} {chance.choice(ends[:3])}" for _ in range(3)]
    body = "\n".join([*lines, *below])
    text = f"*filter\n:FORWARD {chance.choice(('ACCEPT', 'DROP'))} [0:0]\n:sub - [0:0]\n{body}\nCOMMIT\n"
    lab.router.run(["iptables-nft-restore"], text=text)
    return text


@pytest.mark.needs("iptables-nft")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("load", [nft_rules, iptables_rules])
def test_packets_end_where_the_walk_says(box: Lab, load: Callable[[Lab, random.Random], str], seed: int) -> None:
    chance = random.Random(seed)
    known = 0
    for _ in range(ROUNDS):
        text = load(box, chance)
        for port in PORTS:
            verdict = asked(box, port)
            if verdict != "unknown":
                known += 1
                assert leaves(box, port) is (verdict == "accept"), (port, verdict, text)
    assert known >= ROUNDS


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
    assert "policy drop" in finding.evidence[0]
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
