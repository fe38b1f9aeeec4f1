"""The tracer against real packets: where it says a connection goes is where it goes."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from polywan.api import calls
from polywan.api.requests import Words
from polywan.api.why import Explanation
from polywan.config import ConfigError, load_text
from polywan.core.net import Family, IPAddress
from polywan.core.policy.slots import HASH_SLOTS, SEED
from polywan.core.ruleset.policies import hash_key
from polywan.core.trace.choose import HASHES
from polywan.core.trace.jhash import jhash, register_bytes, scaled
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, SOCKET_FAMILY
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import read_line
from support.lan_clients import many_clients
from support.lan_traffic import mac_of
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon

CONFIGURATIONS, CONNECTIONS = 30, 8
"""As many random files, and random connections for each."""

FOREIGN = 0x10000
"""A bit of the packet mark outside of our mask."""

ALGORITHMS = ("weighted", "random", *HASHES, "source-parity", "multipath")
"""All but per-packet, which needs far ends that do not mind."""

_ports = count(20000)


@pytest.mark.needs("conntrack")
@pytest.mark.parametrize("family", [Family.V4, Family.V6])
def test_the_hash_is_the_kernels(family: Family) -> None:
    kinds = dict(enumerate(HASHES, start=1))
    rules = [
        f"meta nfproto {family.nfproto} meta mark {number} "
        f"ct mark set jhash {hash_key(kind, family)} mod {HASH_SLOTS} seed {SEED:#x} offset 1"
        for number, kind in kinds.items()
    ]
    place = Namespace("hashing")
    place.create()
    try:
        # Every address is this box's own; nothing arrives, so that connection tracking keeps what it saw leave.
        place.ip(["route add local 10.0.0.0/8 dev lo", "route add local 2001:db8::/32 dev lo"])
        place.sysctl({"ipv6/ip_nonlocal_bind": 1})
        chains = [_chain("output", -150, *rules), _chain("input", 0, "drop")]
        place.nft("\n".join(["table inet hashing {", *chains, "}\n"]))
        sent = [_send(place, family, number, random.Random(f"{number} {n}")) for number in kinds for n in range(60)]
        listed = place.run(["conntrack", "-L", "-f", family.nfproto]).stdout
    finally:
        place.delete()
    seen = {_tuple(line): _mark(line) - 1 for line in listed.splitlines()}
    assert len(seen) >= len(sent)
    for number, named, key in sent:
        fields = key[: {"source": 1, "source-destination": 2, "connection": 5}[kinds[number]]]
        assert seen[named] == scaled(jhash(register_bytes(fields), SEED), HASH_SLOTS), (kinds[number], named)


def _chain(hook: str, priority: int, *rules: str) -> str:
    return "\n".join([f"chain on_{hook} {{", f"type filter hook {hook} priority {priority};", *rules, "}"])


def _send(
    place: Namespace, family: Family, mark: int, chance: random.Random
) -> tuple[int, tuple[str, ...], list[bytes]]:
    """Begin a connection between random ends; return the mark, the tuple that conntrack shows, and the hash's key."""
    source, destination = _anywhere(family, chance), _anywhere(family, chance)
    ports = chance.randrange(1, 65536), chance.randrange(1, 65536)
    kind, protocol, word = chance.choice([(socket.SOCK_DGRAM, 17, "udp"), (socket.SOCK_STREAM, 6, "tcp")])
    with place.socket(SOCKET_FAMILY[family], kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.bind((str(source), ports[0]))
        with suppress(BlockingIOError):
            sock.connect((str(destination), ports[1]))
        if kind is socket.SOCK_DGRAM:
            sock.send(b"first")
    key = [source.packed, destination.packed, bytes([protocol]), *(port.to_bytes(2, "big") for port in ports)]
    return mark, (word, str(source), str(ports[0]), str(destination), str(ports[1])), key


def _anywhere(family: Family, chance: random.Random) -> IPAddress:
    if family is Family.V4:
        return IPv4Address((10 << 24) | chance.getrandbits(24))
    return IPv6Address((0x2001_0DB8 << 96) | chance.getrandbits(96))


def _tuple(line: str) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for word in line.split():
        name, _, value = word.partition("=")
        first.setdefault(name, value)
    return (line.split(maxsplit=1)[0], *(first[name] for name in ("src", "sport", "dst", "dport")))


def _mark(line: str) -> int:
    return int(next(word for word in line.split() if word.startswith("mark=")).removeprefix("mark="))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A connection to be opened: by which end, from where to where, and what rules may look at."""

    own: bool
    mac: str
    protocol: Literal["tcp", "udp"]
    source: str
    port: int
    target: IPAddress
    dscp: int
    mark: int

    def words(self) -> dict[str, str]:
        """The question about it."""
        target = f"[{self.target}]" if self.target.version == 6 else str(self.target)
        words = {
            "from": self.source or "-",
            "to": f"{target}:{ECHO_PORT}",
            "protocol": self.protocol,
            "source_port": str(self.port),
            "dscp": str(self.dscp),
        }
        return words | ({"mark": str(self.mark), "user": "0", "group": "0"} if self.own else {"mac": self.mac})

    async def open(self, lab: Lab) -> int | None:
        """Open it and return the uplink that the server saw; None when it was refused or came to nothing."""
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        loop = asyncio.get_running_loop()
        with (lab.router if self.own else lab.client).socket(SOCKET_FAMILY[Family(self.target.version)], kind) as sock:
            if self.target.version == 4:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.dscp << 2)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self.dscp << 2)
            if self.own:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.mark)
            sock.bind((self.source, self.port))
            try:
                async with asyncio.timeout(1):
                    await loop.sock_connect(sock, (str(self.target), ECHO_PORT))
                    if self.protocol == "udp":
                        await loop.sock_sendall(sock, b"first")
                        seen = (await loop.sock_recv(sock, 4096)).decode("ascii").partition(" ")[0]
                    else:
                        seen = await read_line(sock)
            except OSError:
                return None
            return lab.topology.number_of(ip_address(seen))


def _planned(
    chance: random.Random, mac: str, clients: dict[Family, list[str]], own: dict[Family, list[str]]
) -> Planned:
    family, at_home = chance.choice([Family.V4, Family.V6]), chance.random() < 0.4
    return Planned(
        own=at_home,
        mac=mac,
        protocol=chance.choice(["tcp", "udp"]),
        source=chance.choice(["", "", *own[family]] if at_home else clients[family]),
        port=next(_ports),
        target=chance.choice(SERVERS[family]),
        dscp=chance.choice([0, 0, 46, 8]),
        mark=chance.choice([0, 0, FOREIGN]),
    )


def _file(lab: Lab, chance: random.Random, algorithm: str, more: list[str]) -> str:
    """A random file that the loader takes: some policies, some rules; the policy `default` has that algorithm.

    Rules may have the conditions in `more` beside those that need nothing of this lab.
    """
    for _ in range(1000):
        parts = [configuration(lab.topology, [chance.choice([1, 2, 3]) for _ in lab.topology.uplinks])]
        policies = {"default": algorithm, "other": chance.choice(ALGORITHMS), "third": chance.choice(ALGORITHMS)}
        parts += [_policy(chance, name, algorithm) for name, algorithm in policies.items()]
        parts += [_rule(chance, list(policies), more) for _ in range(chance.randrange(5))]
        text = "\n".join(parts)
        with suppress(ConfigError):
            load_text(text)
            return text
    pytest.fail(f"no file with {algorithm} is taken")


def _policy(chance: random.Random, name: str, algorithm: str) -> str:
    uplinks = chance.sample(["isp1", "isp2", "isp3"], 3)
    cut = chance.randrange(1, 4)
    tiers = [uplinks[:2]] if algorithm == "source-parity" else [t for t in (uplinks[:cut], uplinks[cut:]) if t]
    lines = [f"[policies.{name}]", f'algorithm = "{algorithm}"', f"tiers = {json.dumps(tiers)}"]
    if algorithm in ("weighted", "random", "connection") and chance.random() < 0.5:
        lines.append(f'affinity = {{ key = "{chance.choice(["source", "source-destination"])}" }}')
    return "\n".join(lines)


def _rule(chance: random.Random, policies: list[str], more: list[str]) -> str:
    where = chance.choice(
        [
            f'policy = "{chance.choice(policies)}"',
            f'policy = "{chance.choice(policies)}"',
            f'uplink = "isp{chance.randrange(1, 4)}"',
            f'only = ["isp{chance.randrange(1, 4)}"]',
            f'policy = "{chance.choice(policies)}"\nonly = ["isp{chance.randrange(1, 3)}", "isp3"]',
            'action = "bypass"',
            'action = "block"',
        ]
    )
    wanted, unwanted = list(_conditions(chance, 2, more)), []
    if chance.random() < 0.4:
        unwanted = list(_conditions(chance, 1, more))
    return "\n".join(["[[rules]]", where, *wanted, f"not = {{ {', '.join(unwanted)} }}" if unwanted else ""])


def _conditions(chance: random.Random, most: int, more: list[str]) -> Iterator[str]:
    known = [
        *more,
        'to = "198.51.100.0/24"',
        'to = ["203.0.113.10", "2001:db8:198::/48"]',
        'from = ["192.168.15.104/30", "2001:db8:15::68/126"]',
        'protocol = "udp"',
        f'protocol = "tcp"\nport = {ECHO_PORT}',
        'protocol = "tcp"\nsource_port = "20000-20060,20100-20200"',
        'in_interface = "lan0"',
        'dscp = "ef"',
        f'fwmark = "{FOREIGN:#x}/{FOREIGN:#x}"',
        "user = 0",
        'time = "mon-sun 00:00-24:00"',
        'family = "ipv6"',
    ]
    chosen = chance.sample(known, chance.randrange(1, most + 1))
    keys = [line.partition(" ")[0] for text in chosen for line in text.split("\n")]
    # Each key once, and no line breaks within the inline table of `not`.
    yield from (text for text in chosen if len(keys) == len(set(keys)) and (most > 1 or "\n" not in text))


def _of_this_lab(mac: str, folder: Path) -> list[str]:
    """Conditions that need its client's MAC, and files with prefixes."""
    files = {"some": "198.51.100.0/25\n2001:db8:198::/64\n", "others": "# none here\n192.0.2.0/24\n203.0.113.0/24\n"}
    for name, text in files.items():
        (folder / name).write_text(text)
    return [
        f'mac = "{mac}"',
        f'mac = ["{mac}", "02:00:00:00:99:99"]',
        'mac = "02:00:00:00:99:99"',
        *(f'list = "{folder / name}"' for name in files),
        f"list = {json.dumps([str(folder / name) for name in files])}",
    ]


def test_connections_go_where_the_tracer_says(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> None:
    chance = random.Random(7)
    mac = mac_of(lab.client, "eth0")
    more = _of_this_lab(mac, tmp_path)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    clients = {family: many_clients(lab, family, 12) for family in (Family.V4, Family.V6)}
    own = {f: [str(u.addresses[f].own.ip) for u in lab.topology.uplinks] for f in (Family.V4, Family.V6)}
    met: set[str | None] = set()

    async def story() -> None:
        for number in range(CONFIGURATIONS):
            text = _file(lab, chance, ALGORITHMS[number % len(ALGORITHMS)], more)
            daemon.config.write_text(text)
            await asyncio.to_thread(daemon.reload)
            for _ in range(CONNECTIONS):
                planned = _planned(chance, mac, clients, own)
                answer = await asyncio.to_thread(daemon.client.ask, calls.WHY, Words(words=planned.words()))
                seen = await planned.open(lab)
                story = "\n".join([*answer.text, repr(planned), f"really: {seen}", text])
                assert seen in _expected(lab, answer), story
                assert answer.agrees is not False, story
                if answer.outcome == "uplink" and answer.algorithm in HASHES and not answer.notes:
                    assert len(answer.uplinks) == 1, story
                met.update((answer.outcome, answer.algorithm))

    with_servers(lab, story)
    assert met >= {"uplink", "bound", "main", "refused"}
    assert met >= set(ALGORITHMS)


def _expected(lab: Lab, answer: Explanation) -> set[int | None]:
    """Numbers of the uplinks that the server may see; None when the connection comes to nothing."""
    by_device: dict[str | None, int] = {u.interface: u.number for u in lab.topology.uplinks}
    if answer.outcome in ("refused", "dropped"):
        return {None}
    if answer.outcome == "main":
        return {by_device[answer.interface]}
    # The sockets here are connected, which nobody can tell the tracer.
    if stays := [
        found[1] for note in answer.notes if (found := re.search(r"is connected looks bound.* isp(\d)", note))
    ]:
        return {int(number) for number in stays}
    return {by_device[uplink.interface] for uplink in answer.uplinks}
