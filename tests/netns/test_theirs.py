"""Policy rules of others, drawn from seeds: the kernel's routing, the decision on paper and the chains agree."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from polywan.core.net import FAMILIES, TABLE_MAIN, Family
from polywan.core.packet import Packet
from polywan.core.ruleset.model import Chain, Hook, NftRule, NftSet, NftTable
from polywan.core.ruleset.neighbours.foreign_rules import decides, theirs_chains, theirs_sets
from polywan.core.trace.route_query import RouteQuery
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.observed import Observed
from polywan.kernel.linux import LinuxKernel
from polywan.lab.namespaces import Namespace, ip_batch
from support.foreign_rules import TABLES, Outside, Place, carry_out, frame, packet_socket, packets, rules, tables

PLACES = (
    Place("lan0", {Family.V4: "10.77.0.0/24", Family.V6: "2001:db8:77::/64"}),
    Place("lan1", {Family.V4: "10.78.0.0/24", Family.V6: "2001:db8:78::/64"}),
)
OUT = Outside(
    ("out0", "tun0", "tun1"),
    {
        Family.V4: ("203.0.113.0/24", "203.0.113.0/28", "203.0.113.5/32", "198.51.100.0/24", "198.51.100.64/26"),
        Family.V6: (
            "2001:db8:1::/48",
            "2001:db8:1::/64",
            "2001:db8:1::5/128",
            "2001:db8:2::/48",
            "2001:db8:2:8000::/49",
        ),
    },
    {
        Family.V4: ("203.0.113.5", "203.0.113.9", "203.0.113.99", "198.51.100.7", "198.51.100.77"),
        Family.V6: ("2001:db8:1::5", "2001:db8:1::9", "2001:db8:1:7::1", "2001:db8:2::7", "2001:db8:2:8000::7"),
    },
)
SEEDS, RULES, PACKETS = range(20), 12, 120


@dataclass
class Box:
    """A router with two networks inside, and with devices that swallow everything: main's default is by out0."""

    place: Namespace
    inside: Namespace
    kernel: LinuxKernel

    def others_have(self, seed: int) -> Observed:
        """Make rules and tables; what was there from before is gone."""
        chance = random.Random(seed)
        for family in FAMILIES:
            self.place.run(["ip", f"-{family}", "rule", "flush"])
            carry_out(self.place, [(family, f"rule add pref {p} lookup {t}") for p, t in ((32766, 254), (32767, 253))])
            for table in TABLES:
                self.place.run(["ip", f"-{family}", "route", "flush", "table", str(table)], check=False)
        priorities = sorted(chance.sample(range(10, 9000), RULES))
        carry_out(self.place, [*tables(chance, OUT), *rules(chance, PLACES, OUT, priorities)])
        with self.place.entered():
            return self.kernel.observe()

    def goes(self, packet: Packet) -> tuple[str, int, str | None]:
        """What the kernel does with a packet that it forwards: kind, table and device."""
        query = RouteQuery(
            family=packet.family,
            destination=packet.destination,
            source=packet.source,
            mark=packet.mark,
            in_interface=packet.in_interface,
            protocol=packet.protocol,
            source_port=packet.source_port,
            port=packet.port,
            dscp=packet.dscp,
        )
        answer = self.kernel.ask(query)
        return answer.kind, answer.table, answer.link

    def decided(self, sent: list[Packet], observed: Observed) -> set[int]:
        """Send packets through the chains and return the numbers of those that are decided."""
        self.place.nft(_table(sent, observed))
        with ExitStack() as stack:
            with self.inside.entered():
                socks = {p.device: stack.enter_context(packet_socket(f"to-{p.device}")) for p in PLACES}
            for number, packet in enumerate(sent, start=1):
                device = str(packet.in_interface)
                socks[device].send(frame(packet, number, self._address(device)))
        deadline = time.monotonic() + 5
        while len(self._numbers("seen_4") | self._numbers("seen_6")) < len(sent):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self._numbers("decided_4") | self._numbers("decided_6")

    def _numbers(self, name: str) -> set[int]:
        shown = json.loads(self.place.run(["nft", "-j", "list", "set", "inet", "polywan", name]).stdout)
        found = set(next(item["set"] for item in shown["nftables"] if "set" in item).get("elem", []))
        return found - {0}  # what the devices themselves send when they come up

    def _address(self, device: str) -> bytes:
        shown = json.loads(self.place.run(["ip", "-json", "link", "show", "dev", device]).stdout)
        return bytes.fromhex(shown[0]["address"].replace(":", ""))


NUMBER = {Family.V4: "ip id", Family.V6: "ip6 flowlabel"}


def _table(sent: list[Packet], observed: Observed) -> str:
    """The chains, with marks as another program would set them before, and a note of who came past and who did not."""
    first: list[NftRule] = []
    tell: list[NftRule] = []
    sets = dict(theirs_sets(observed.rules, observed.tables, verdict="goto tell"))
    for family in FAMILIES:
        mine = {n: p.mark for n, p in enumerate(sent, start=1) if p.family is family}
        marks = ", ".join(f"{number} : {mark:#x}" for number, mark in mine.items())
        of = f"meta nfproto {family.nfproto}"
        first.append(NftRule(f"{of} meta mark set {NUMBER[family]} map {{ {marks} }}", "as others mark"))
        tell.append(NftRule(f"{of} add @decided_{family} {{ {NUMBER[family]} }}", "decided"))
        for name in (f"decided_{family}", f"seen_{family}"):
            sets[name] = NftSet(f"typeof {NUMBER[family]}; size 4096; flags dynamic;")
    sees = [NftRule(f"add @seen_{f} {{ {NUMBER[f]} }}", "was here") for f in FAMILIES]
    chains = theirs_chains(observed.rules, observed.tables, verdict="goto tell")
    jump = [NftRule("jump theirs", "")] if chains else []
    table = NftTable(
        chains={
            "mark_theirs": Chain(tuple(first), Hook("filter", "prerouting", -150)),
            "tell": Chain(tuple(tell)),
            **chains,
            "asking": Chain(tuple(jump), Hook("filter", "prerouting", 100)),
            "afterwards": Chain(tuple(sees), Hook("filter", "prerouting", 200)),
        },
        sets=sets,
    )
    return f"table inet polywan {{}}\ndelete table inet polywan\n{table.render()}"


@pytest.fixture
def box() -> Iterator[Box]:
    place, inside = Namespace("box"), Namespace("inside")
    place.create()
    inside.create()
    try:
        off = {f"ipv{f}/conf/{d}/rp_filter": 0 for f in (4,) for d in ("all", "default")}
        place.sysctl({**off, "ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
        for n, device in enumerate(PLACES):
            ip_batch(
                [f"link add {device.device} netns {place.name} type veth peer to-{device.device} netns {inside.name}"]
            )
            place.ip([f"link set {device.device} up", f"addr add 10.{77 + n}.0.1/24 dev {device.device}"])
            place.ip([f"addr add 2001:db8:{77 + n}::1/64 dev {device.device} nodad"])
            inside.ip([f"link set to-{device.device} up"])
        for out in OUT.devices:
            ip_batch([f"link add {out} netns {place.name} type veth peer far-{out} netns {inside.name}"])
            place.ip([f"link set {out} up"])
            inside.ip([f"link set far-{out} up"])
        place.ip(["route add default dev out0", "route add ::/0 dev out0"])
        with place.entered():
            kernel = LinuxKernel()
        try:
            yield Box(place, inside, kernel)
        finally:
            kernel.close()
    finally:
        place.delete()
        inside.delete()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_kernel_decides_by_rules_of_others_is_known_on_paper_and_in_the_chains(box: Box, seed: int) -> None:
    observed = box.others_have(seed)
    sent = packets(random.Random(f"packets {seed}"), PLACES, OUT, PACKETS)
    expected = set()
    with box.place.entered():
        for number, packet in enumerate(sent, start=1):
            rule = decides(observed.rules, observed.tables, packet)
            kind, table, _ = box.goes(packet)
            text = f"{number}: {packet}\n{rule}\nthe kernel: {kind} by table {table}"
            if isinstance(rule, ForeignRule):
                expected.add(number)
                if kind == "unicast":
                    assert table == rule.table, text
                else:
                    assert kind in ("unreachable", "prohibit", "blackhole", "none"), text
            else:
                assert (kind, table) == ("unicast", TABLE_MAIN), text
    decided = box.decided(sent, observed)
    wrong = [f"{n}: {sent[n - 1]}" for n in sorted(decided ^ expected)]
    assert wrong == [], "\n".join([*wrong, *(rule.text() for rule in observed.rules)])
