"""Rules drawn from seeds, loaded by their programs: where the walk is sure, real packets meet what it says."""

from __future__ import annotations

import os
import random
import select
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from polywan.core.firewall.passing import Passing
from polywan.core.firewall.walk import outcome
from polywan.core.net import FAMILIES, Family
from polywan.kernel.firewall import read_firewall
from polywan.lab.namespaces import Namespace, ip_batch

SEEDS, RULES = range(12), 7
INSIDE = {Family.V4: ("10.66.1.2", "10.66.1.99"), Family.V6: ("2001:db8:661::2", "2001:db8:661::99")}
OUTSIDE = {Family.V4: ("10.66.2.2", "10.66.2.99"), Family.V6: ("2001:db8:662::2", "2001:db8:662::99")}
FIRST_PORT, PORTS = 20000, (53, 80, 443)
LAST_PORT = 9
MOST_SILENCE = 5.0
"""Seconds until what the router itself sends must be there."""

_SOCKETS = {Family.V4: socket.AF_INET, Family.V6: socket.AF_INET6}
_PREFIX = {Family.V4: 24, Family.V6: 64}


@dataclass(frozen=True)
class Box:
    """A router between two networks."""

    inside: Namespace
    router: Namespace
    outside: Namespace

    def passes(self, packets: list[Passing]) -> set[int]:
        """Send each packet from its own port and return the source ports that arrive at the other side."""
        with ExitStack() as stack:
            with self.outside.entered():
                ear = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
                ear.bind(("wan0", 3))
            # All on one processor: packets arrive in the order in which they were sent.
            mask = os.sched_getaffinity(0)
            stack.callback(os.sched_setaffinity, 0, mask)
            os.sched_setaffinity(0, {min(mask)})
            with self.inside.entered():
                for packet in packets:
                    send(packet)
            with self.router.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (OUTSIDE[Family.V4][0], LAST_PORT))
            return set(heard(ear))


def send(packet: Passing) -> None:
    kind = socket.SOCK_STREAM if packet.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(_SOCKETS[packet.family], kind) as sock:
        sock.setblocking(False)
        sock.bind((str(packet.source), packet.source_port))
        there = (str(packet.destination), packet.port)
        sock.connect_ex(there)
        if kind == socket.SOCK_DGRAM:
            sock.send(b"x")


def heard(ear: socket.socket) -> Iterator[int]:
    """Yield source ports until the router's own packet is there."""
    end = time.monotonic() + MOST_SILENCE
    while select.select([ear], [], [], max(0.0, end - time.monotonic()))[0]:
        data = ear.recv(2048)
        header = 20 if data[0] >> 4 == 4 else 40
        if len(data) < header + 4:
            continue
        source, destination = (int.from_bytes(data[at : at + 2], "big") for at in (header, header + 2))
        if destination == LAST_PORT:
            return
        if source >= FIRST_PORT and destination in PORTS:
            yield source
    raise AssertionError("the router's own packet has not arrived")


@contextmanager
def built() -> Iterator[Box]:
    names = [Namespace(f"fw-{name}") for name in ("inside", "router", "outside")]
    with ExitStack() as stack:
        for name in names:
            name.create()
            stack.callback(name.delete)
        box = Box(*names)
        ends = ((box.inside, "lan0", "1"), (box.outside, "wan0", "2"))
        lines = []
        for far, device, _ in ends:
            lines.append(f"link add {device} netns {box.router.name} type veth peer name {device} netns {far.name}")
        ip_batch(lines)
        for family in FAMILIES:
            settings = {"ipv4/ip_forward": 1} if family is Family.V4 else {"ipv6/conf/all/forwarding": 1}
            box.router.sysctl(settings)
        for (far, device, _), hosts in zip(ends, (INSIDE, OUTSIDE), strict=True):
            hardware = {far: "02:00:00:00:66:01", box.router: "02:00:00:00:66:02"}
            for place, address in hardware.items():
                place.ip([f"link set {device} address {address} up"])
            for family in FAMILIES:
                gateway = f"{hosts[family][0][:-1]}1"
                box.router.ip([f"addr add {gateway}/{_PREFIX[family]} dev {device} {nodad(family)}"])
                far.ip([f"addr add {host}/{_PREFIX[family]} dev {device} {nodad(family)}" for host in hosts[family]])
                far.ip(
                    [
                        f"route add default via {gateway} dev {device}",
                        f"neigh add {gateway} lladdr {hardware[box.router]} dev {device}",
                    ]
                )
                box.router.ip([f"neigh add {host} lladdr {hardware[far]} dev {device}" for host in hosts[family]])
        yield box


def nodad(family: Family) -> str:
    return "nodad" if family is Family.V6 else ""


@pytest.fixture
def box() -> Iterator[Box]:
    with built() as found:
        yield found


def packets(seed: int) -> list[Passing]:
    """Each connection is one that was not there before."""
    every = [
        (family, source, destination, protocol, port)
        for family in FAMILIES
        for source in INSIDE[family]
        for destination in OUTSIDE[family]
        for protocol in ("tcp", "udp")
        for port in PORTS
    ]
    return [
        Passing(
            family=family,
            in_device="lan0",
            out_device="wan0",
            source=ip_address(source),
            destination=ip_address(destination),
            protocol=protocol,
            source_port=FIRST_PORT + seed * len(every) + number,
            port=port,
        )
        for number, (family, source, destination, protocol, port) in enumerate(every)
    ]


def iptables_text(chance: random.Random, family: Family) -> str:
    """A table filter with two more chains; what is known and what is not, in any order."""
    inside, outside = INSIDE[family], OUTSIDE[family]
    conditions = [
        *("-i lan0", "-i lan+", "! -i lan0", "-o wan0", "-i wan0", "-p tcp", "! -p udp", "-p udp -m udp --dport 53"),
        *(f"-s {inside[0]}", f"! -s {inside[0]}", f"-d {outside[1]}", "-p tcp -m tcp --dport 443", ""),
        *("-p tcp -m tcp --syn", "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN", "-p tcp -m multiport --dports 80,443"),
        *("-m conntrack --ctstate NEW", "-m conntrack --ctstate RELATED,ESTABLISHED", "-m state ! --state NEW"),
        *("-m mark --mark 0x1/0x3", "-m mark ! --mark 0x2", "-m connmark --mark 0x1", "-m conntrack --ctdir ORIGINAL"),
        *("-m statistic --mode nth --every 2 --packet 0", "-m limit --limit 1/hour --limit-burst 1"),
        f"-m iprange --src-range {inside[0]}-{inside[0]}",
    ]
    ends = ["ACCEPT", "DROP", "RETURN", "MARK --set-xmark 0x1/0x3", "MARK --set-mark 2", "MARK --or-mark 4"]
    ends += ["CONNMARK --save-mark", "CONNMARK --set-mark 1", "CONNMARK --restore-mark --nfmask 0x3 --ctmask 0x3"]
    lines = ["*filter", f":FORWARD {chance.choice(['ACCEPT', 'DROP'])} [0:0]", ":one - [0:0]", ":two - [0:0]"]
    for chain, further in (("FORWARD", ["-j one", "-g one", "-j two"]), ("one", ["-j two", "-g two"]), ("two", [])):
        for _ in range(RULES):
            target = chance.choice([f"-j {end}" for end in ends] + 3 * further)
            asked = chance.choice(conditions)
            if "--save-mark" in target or "--set-mark 1" in target:
                asked = ""  # all packets of a connection alike
            lines.append(f"-A {chain} {asked} {target}")
    return "\n".join([*lines, "COMMIT", ""])


def nft_text(chance: random.Random) -> str:
    inside, outside = INSIDE[Family.V4], OUTSIDE[Family.V6]
    conditions = [
        *(
            'iifname "lan0"',
            'iifname "lan*"',
            'oifname != "wan0"',
            "iifname @inside",
            'oif "wan0"',
            "tcp dport 443",
            "",
        ),
        *(f"ip saddr {inside[0]}", f"ip saddr != {inside[0]}", f"ip6 daddr {outside[1]}", "ip saddr @some"),
        *("meta nfproto ipv4", "meta l4proto { tcp, udp } th dport 53", "udp dport 50-90", "tcp dport != { 80, 443 }"),
        *(
            "ct state new",
            "ct state established,related",
            "ct state != new",
            "ct direction original",
            "ct state { new }",
        ),
        *(
            "meta mark & 0x3 == 0x1",
            "meta mark != 2",
            "ct mark 1",
            "tcp flags syn / fin,syn,rst,ack",
            "limit rate 1/hour",
        ),
        *("numgen inc mod 2 0", "meta length < 50", "tcp dport < 100", "meta mark set 3"),
    ]
    ends = [
        "accept",
        "drop",
        "return",
        "meta mark set 1",
        "meta mark set meta mark & 0xfffffffc | 0x1",
        "ct mark set 1",
    ]
    ends += ["meta mark set ct mark", "ct mark set meta mark", "counter", "meta mark set meta mark ^ 0x3"]
    ends += ["meta mark set numgen inc mod 2 map { 0 : 1, 1 : 2 }", "tcp dport vmap { 80 : drop, 443 : accept }"]
    ends += ["ct state vmap { established : accept, invalid : drop }"]
    text = 'table inet others {\nset inside { type ifname; elements = { "lan0" }; }\n'
    text += f"set some {{ type ipv4_addr; flags interval; elements = {{ {inside[1]}, 10.77.0.0/16 }}; }}\n"
    for chain, further in (
        ("two", []),
        ("one", ["jump two", "goto two"]),
        ("early", ["jump one"]),
        ("late", ["goto one"]),
    ):
        text += f"chain {chain} {{\n"
        if chain in ("early", "late"):
            priority, policy = {"early": -5, "late": 5}[chain], chance.choice(["accept", "drop"])
            text += f"type filter hook forward priority {priority}; policy {policy};\n"
        into = 3 * [*further, "iifname vmap { lan0 : jump two, wan0 : drop }"] if further else []
        for _ in range(RULES):
            asked, end = chance.choice(conditions), chance.choice(ends + into)
            text += f"{'' if 'udp' in asked and 'tcp' in end else asked} {end}\n"
        text += "}\n"
    return text + "}\n"


def agree(box: Box, seed: int) -> int:
    """Compare what the walk says with what arrives; return of how many packets it was sure."""
    with box.router.entered():
        firewall, problems = read_firewall()
    assert problems == ()
    sent = packets(seed)
    arrived = box.passes(sent)
    sure = 0
    for packet in sent:
        found = outcome(firewall, packet)
        if found.verdict != "unknown":
            sure += 1
            assert (found.verdict == "accept") == (packet.source_port in arrived), (seed, packet, found.text)
    return sure


def load(box: Box, program: str, texts: dict[Family, str]) -> None:
    for family, text in texts.items():
        name = f"{'iptables' if family is Family.V4 else 'ip6tables'}-{program}-restore"
        box.router.run([name], text=text)


@pytest.mark.parametrize("program", ["nft", "legacy"])
def test_rules_of_iptables_do_what_the_walk_says(box: Box, program: str) -> None:
    if shutil.which(f"iptables-{program}-restore") is None:
        pytest.skip(f"iptables-{program} is absent (package iptables)")
    conditions = "-m statistic --mode nth --every 2 --packet 0 -m limit -m iprange --src-range 0.0.0.0"
    tried = f"*filter\n-A FORWARD {conditions} -j CONNMARK --save-mark\nCOMMIT\n"
    probe = box.router.run([f"iptables-{program}-restore"], text=tried, check=False)
    if probe.returncode:
        pytest.skip(f"this kernel takes no rules of iptables-{program}: {probe.stderr.strip()}")
    sure = 0
    for seed in SEEDS:
        chance = random.Random(seed)
        load(box, program, {family: iptables_text(chance, family) for family in FAMILIES})
        sure += agree(box, seed)
    assert sure > len(packets(0)) * len(SEEDS) / 4


def test_rules_of_nft_do_what_the_walk_says(box: Box) -> None:
    sure = 0
    for seed in SEEDS:
        box.router.nft(f"flush ruleset\n{nft_text(random.Random(seed))}")
        sure += agree(box, seed)
    assert sure > len(packets(0)) * len(SEEDS) / 4


def test_reading_makes_no_table(box: Box) -> None:
    with box.router.entered():
        assert read_firewall()[0].tables == ()
    assert box.router.run(["nft", "list", "ruleset"]).stdout == ""
