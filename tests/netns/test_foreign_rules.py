"""Random policy rules of others around polywan's: what they decide goes as without polywan, and `why` says where."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from polywan.api import calls
from polywan.api.requests import Words
from polywan.api.why import Explanation
from polywan.core.net import FAMILIES, Family
from polywan.core.packet import Packet
from polywan.core.ruleset.neighbours.foreign_rules import decides, theirs_chains
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.observed import Observed
from polywan.kernel.linux import LinuxKernel
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import SOCKET_FAMILY
from polywan.lab.topology import SERVERS
from support.foreign_rules import TABLES, Outside, Place, carry_out, frame, packet_socket, packets, rules, tables
from support.lan_traffic import mac_of
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

LAN = Place("lan0", {Family.V4: "192.168.15.0/24", Family.V6: "2001:db8:15::/64"})
OUT = Outside(
    ("tun0", "tun0", "wan1", "wan2"),
    {
        Family.V4: ("203.0.113.0/24", "203.0.113.10/32", "198.51.100.0/24", "198.51.100.10/31", "198.51.100.10/32"),
        Family.V6: ("2001:db8:203::/48", "2001:db8:203::10/128", "2001:db8:198::/48", "2001:db8:198::10/128"),
    },
    {family: tuple(map(str, addresses)) for family, addresses in SERVERS.items()},
)
UPLINKS = {"wan1", "wan2"}
SEEDS, RULES, PACKETS = range(16), 5, 40
FIRST_PORT = 20000


@dataclass
class Router:
    """The lab's router, with what another program has on it."""

    lab: Lab
    kernel: LinuxKernel

    def set_up(self) -> None:
        self.lab.router.ip(["link add tun0 type veth peer name tun0far", "link set tun0 up", "link set tun0far up"])
        self.lab.router.sysctl({"ipv4/conf/tun0/rp_filter": 0, "ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})

    def others_have(self, seed: int) -> Observed:
        chance = random.Random(seed)
        before, after = chance.sample(range(10, 5900), RULES), chance.sample(range(7000, 32700), RULES)
        lines = rules(chance, [LAN], OUT, sorted([*before, *after]), ports=False)
        carry_out(self.lab.router, [*tables(chance, OUT), *lines])
        with self.lab.router.entered():
            return self.kernel.observe()

    def others_have_nothing(self, observed: Observed) -> None:
        lines = [(rule.family, f"rule del pref {rule.priority}") for rule in observed.rules]
        carry_out(self.lab.router, lines)
        for family, table in product(FAMILIES, TABLES):
            self.lab.router.run(["ip", f"-{family}", "route", "flush", "table", str(table)], check=False)

    def leave(self, sent: list[Packet]) -> dict[int, str]:
        """Send first packets, each from a port of its own, and return by which device those leave that do."""
        self.lab.router.run(["conntrack", "-F"], check=False)
        self.lab.router.nft(_watching(sent))
        mac = bytes.fromhex(mac_of(self.lab.router, LAN.device).replace(":", ""))
        with ExitStack() as stack:
            with self.lab.client.entered():
                wire = stack.enter_context(packet_socket("eth0"))
            for number, packet in enumerate(sent, start=1):
                if packet.in_interface is not None:
                    wire.send(frame(packet, number, mac))
                else:
                    stack.enter_context(self._own(packet))
            arriving = {packet.source_port for packet in sent if packet.in_interface is not None}
            deadline = time.monotonic() + 5
            while not arriving <= set(self._elements("came")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return self._seen(sent)

    def _own(self, packet: Packet) -> socket.socket:
        kind = socket.SOCK_STREAM if packet.protocol == 6 else socket.SOCK_DGRAM
        sock = self.lab.router.socket(SOCKET_FAMILY[packet.family], kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, packet.mark)
        if packet.family is Family.V4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, packet.dscp << 2)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, packet.dscp << 2)
        sock.bind(("", packet.source_port or 0))
        end = (str(packet.destination), packet.port)
        with suppress(OSError):
            sock.connect(end) if kind is socket.SOCK_STREAM else sock.sendto(b"first", end)
        return sock

    def _seen(self, sent: list[Packet]) -> dict[int, str]:
        found: dict[int, str] = {}
        for element in self._elements("left"):
            port, device = element["concat"]
            found.setdefault(port - FIRST_PORT, device)
        return {number: device for number, device in found.items() if 0 < number <= len(sent)}

    def _elements(self, name: str) -> list[Any]:
        shown = json.loads(self.lab.router.run(["nft", "-j", "list", "set", "inet", "watching", name]).stdout)
        return list(next(item["set"] for item in shown["nftables"] if "set" in item).get("elem", []))


def _watching(sent: list[Packet]) -> str:
    """Marks as another program sets them on what comes from the LAN, and a note of what leaves by which device."""
    marks = ", ".join(f"{p.source_port} : {p.mark:#x}" for p in sent if p.in_interface is not None)
    return f"""
table inet watching {{}}
delete table inet watching
table inet watching {{
  set left {{ typeof th sport . meta oifname; size 4096; flags dynamic; }}
  set came {{ typeof th sport; size 4096; flags dynamic; }}
  chain arriving {{
    type filter hook prerouting priority mangle;
    iifname "lan0" meta l4proto {{ tcp, udp }} meta mark set th sport map {{ {marks} }} add @came {{ th sport }}
  }}
  chain leaving {{
    type filter hook postrouting priority 50;
    oifname != "lo" ct direction original meta l4proto {{ tcp, udp }} add @left {{ th sport . meta oifname }}
  }}
}}
"""


def _drawn(seed: int) -> list[Packet]:
    """Packets of the LAN and of the box, each with a source port of its own."""
    chance = random.Random(f"packets {seed}")
    found = packets(chance, [LAN], OUT, PACKETS, ported=True)
    return [
        replace(
            packet,
            source_port=FIRST_PORT + number,
            in_interface=None if own else LAN.device,
            source=Family(packet.family).default.network_address if own else packet.source,
        )
        for number, packet in enumerate(found, start=1)
        for own in [chance.random() < 0.4]
    ]


def _words(packet: Packet) -> dict[str, str]:
    to = f"[{packet.destination}]" if packet.family is Family.V6 else str(packet.destination)
    words = {
        "to": f"{to}:{packet.port}",
        "protocol": "tcp" if packet.protocol == 6 else "udp",
        "source_port": str(packet.source_port),
        "dscp": str(packet.dscp),
        "mark": str(packet.mark),
    }
    if packet.in_interface is None:
        return {**words, "from": "-", "user": "0", "group": "0"}
    return {**words, "from": str(packet.source), "in_interface": packet.in_interface}


def _in_force(router: Router, observed: Observed) -> bool:
    """True when the daemon has compiled these rules, and its policy rules are those that it wants."""
    with router.lab.router.entered():
        actual = router.kernel.read(())
    wanted = theirs_chains(observed.rules, observed.tables)
    chains = actual.nft.chains if actual.nft is not None else {}
    there = {name for name in chains if name.startswith("theirs") and not name.startswith("theirs_own")}
    return there == set(wanted) and all(chains[name].rules == chain.state.rules for name, chain in wanted.items())


@pytest.mark.needs("conntrack")
def test_what_rules_of_others_decide_goes_as_without_polywan_and_is_told(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    with lab.router.entered():
        kernel = LinuxKernel()
    router = Router(lab, kernel)
    router.set_up()
    without: dict[int, dict[int, str]] = {}
    for seed in SEEDS:
        observed = router.others_have(seed)
        without[seed] = router.leave(_drawn(seed))
        router.others_have_nothing(observed)

    async def story() -> None:
        daemon = await asyncio.to_thread(start_daemon, lab, configuration(lab.topology, (1, 1)))
        wait_for(lambda: all(u.state == "up" for u in daemon.status().uplinks), 15)
        for seed in SEEDS:
            observed = router.others_have(seed)
            wait_for(partial(_in_force, router, observed))
            await asyncio.sleep(0.1)
            sent = _drawn(seed)
            remaining = router.leave(sent)
            for number, packet in enumerate(sent, start=1):
                answer = await asyncio.to_thread(daemon.client.ask, calls.WHY, Words(words=_words(packet)))
                before, after = without[seed].get(number), remaining.get(number)
                faults.extend(_faults(packet, observed, before, after, answer))
            router.others_have_nothing(observed)
            wait_for(partial(_in_force, router, replace(observed, rules=())))

    faults: list[str] = []
    try:
        with_servers(lab, story)
    finally:
        kernel.close()
    assert faults == [], "\n\n".join(faults)


def _faults(
    packet: Packet, observed: Observed, before: str | None, after: str | None, answer: Explanation
) -> list[str]:
    rule = decides(observed.rules, observed.tables, packet)
    story = "\n".join([f"{packet}", f"without polywan: {before}; with it: {after}", *answer.text])
    theirs = isinstance(rule, ForeignRule)
    wanted = {before} if theirs or before not in UPLINKS else UPLINKS
    faults = [] if after in wanted else [f"it should leave by {wanted}\n{story}"]
    if answer.outcome in ("refused", "dropped"):
        said: set[str | None] = {None}
    elif answer.outcome == "main":
        said = {answer.interface}
    else:
        said = {uplink.interface for uplink in answer.uplinks}
    # IPv6 that was refused for want of a source is asked about again, with one that only the kernel knows.
    again = answer.outcome == "refused" and packet.in_interface is None and packet.family is Family.V6
    faults += [] if after in said or again else [f"why is wrong\n{story}"]
    return faults + ([f"the kernel disagrees\n{story}"] if answer.agrees is False else [])
