"""What the rules of real firewalls do with packets of established connections is read from the kernel, not guessed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polywan.kernel.nft import filter_rules
from polywan.kernel.nft.filter_rules import Watchers
from polywan.lab.namespaces import Namespace

NOBODY = Path("/proc/self/no-such-tables")
"""This machine may have the older iptables; here it is about nftables."""


@pytest.fixture
def place() -> Iterator[Namespace]:
    spare = Namespace("watched")
    spare.create()
    yield spare
    spare.delete()


def watched(place: Namespace) -> str:
    with place.entered():
        return Watchers(("inet polywan",), NOBODY).reason()


def chain(*rules: str, hook: str = "filter hook forward priority 0") -> str:
    body = "\n".join(rules)
    return f"table inet theirs {{\nchain x {{\ntype {hook}; policy accept;\n{body}\n}}\n}}\n"


WATCHING = {
    "limit": chain("limit rate over 1 mbytes/second drop", "ct state established accept"),
    "quota": chain("quota over 1 mbytes drop"),
    "log": chain("ct state established,related log accept"),
    "a header field": chain("ip dscp set ef", hook="filter hook postrouting priority -150"),
    "a header set": chain("tcp dport set 81", hook="filter hook postrouting priority -150"),
    "meta mark set": chain('iifname "lo" meta mark set 1', hook="filter hook prerouting priority -150"),
    "meta priority set": chain("meta priority set 1:2", hook="filter hook postrouting priority 0"),
    "meta hour": chain('meta hour "21:00"-"22:00" drop'),
    "ct bytes": chain("ct bytes > 1000000 drop"),
    "numgen": chain("numgen random mod 100 < 2 drop"),
    "meta length": chain("meta length > 1000 drop"),
    "ct expiration": chain("ct expiration < 10s drop"),
    "connlimit": chain("ct count over 10 drop"),
    "tcp option": chain("tcp option timestamp exists drop"),
    "tcp flags": chain("tcp flags & psh == psh drop"),
    "set paid": chain("ip saddr @paid accept", "drop").replace(
        "chain x", "set paid { type ipv4_addr; flags timeout; }\nchain x"
    ),
    "set seen": chain("ip saddr @seen drop").replace("chain x", "set seen { type ipv4_addr; flags dynamic; }\nchain x"),
}


@pytest.mark.parametrize("what", WATCHING)
def test_what_differs_from_packet_to_packet_has_to_see_them_all(place: Namespace, what: str) -> None:
    place.nft(WATCHING[what])
    assert watched(place) == f"chain x of table inet theirs has to see every packet ({what})"


FAR = "chain far {\nlog\n}\nchain x"
LOGGED = {
    "a state beside something else, in a map": "ct state . meta l4proto vmap { established . tcp : jump far }",
    "a state beside something else, in a set": "ct state . meta l4proto { established . tcp } jump far",
    "whatever a map does not name": "ct state vmap { new : accept, * : jump far }",
    "a number that takes the place of the state": "ct state established symhash mod 2 0 jump far",
    "devices that others may come by, in a map": 'iifname vmap { "a" : accept, "b" : accept }\njump far',
    "devices that others may come by, in a set": 'iifname { "a", "b" } accept\njump far',
    "a protocol that others may have": "meta l4proto != udp accept\njump far",
    "a reject that not all meet": "ip saddr 192.0.2.1 reject\njump far",
}


@pytest.mark.parametrize("case", LOGGED)
def test_a_rule_that_some_packets_may_meet_counts_as_met(place: Namespace, case: str) -> None:
    place.nft(chain(LOGGED[case]).replace("chain x", FAR))
    assert watched(place) == "chain x of table inet theirs has to see every packet (log)"


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_tables_of_one_family_are_read(place: Namespace, family: str) -> None:
    place.nft(chain("log").replace("inet", family))
    assert watched(place) == f"chain x of table {family} theirs has to see every packet (log)"


OBJECTS = {
    "counter": ("counter seen { }", "counter name seen", ""),
    "helper": (
        'ct helper far { type "ftp" protocol tcp; }',
        'tcp dport 21 ct helper set "far"',
        "",
    ),
    "quota": ("quota most { over 1 mbytes }", "quota name most drop", "quota"),
    "limit": ("limit rapid { rate 1/second }", "limit name rapid log", "limit"),
    "map": ("counter seen { }", "counter name tcp dport map { 80 : seen }", "objref"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_named_objects_count_like_what_they_are(place: Namespace, kind: str) -> None:
    declared, rule, expected = OBJECTS[kind]
    place.nft(chain(rule).replace("chain x", f"{declared}\nchain x"))
    assert watched(place) == (f"chain x of table inet theirs has to see every packet ({expected})" if expected else "")


PLAIN = {
    "nothing": "",
    "established first": chain("ct state established,related accept", "limit rate 3/minute log"),
    "a set of states": chain("ct state { established, related } accept", "log"),
    "a map of states": chain("ct state vmap { established : accept, invalid : drop }", "log"),
    "first packets alone": chain("ct state new log", "ct state invalid log drop", "ct state != established log"),
    "addresses and ports": chain("ip saddr 192.0.2.1 drop", "tcp dport { 25, 465 } reject", "counter"),
    "segment sizes": chain("tcp flags syn tcp option maxseg size set rt mtu"),
    "states that a set does not name": chain("ct state != { new } accept", "log"),
    "what rejects every packet": chain("ct state established reject", "log"),
    "a ban that ends by itself": chain("ip saddr @bad drop", "ip daddr @bad counter reject").replace(
        "chain x", "set bad { type ipv4_addr; flags timeout; }\nchain x"
    ),
    "a flood of first packets": chain("tcp flags & (fin|syn|rst|ack) == syn limit rate over 25/second drop"),
    "first packets by their flag": chain(
        "tcp flags syn log", "tcp flags == syn log", "tcp flags & (syn|ack) == syn log"
    ),
    "scans": chain("tcp flags & (fin|psh|urg) == fin|psh|urg log drop", "tcp flags & (syn|fin) == syn|fin log drop"),
    "fragments": chain("ip frag-off & 0x1fff != 0 drop"),
    "IPv6": chain("ip6 saddr 2001:db8::/32 drop", "ip6 daddr fe00::/8 drop", "ip6 nexthdr udp accept"),
    "translation": chain("masquerade", hook="nat hook postrouting priority 100"),
    "what this box sends": chain("log", hook="filter hook output priority 0"),
    "our own table": chain("log").replace("theirs", "polywan"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_what_says_the_same_of_every_packet_of_a_connection_need_not(place: Namespace, case: str) -> None:
    place.nft(PLAIN[case])
    assert watched(place) == ""


def test_rules_behind_jumps_and_maps_are_found(place: Namespace) -> None:
    place.nft(
        "table ip theirs {\nchain far {\ncounter log\n}\nchain near {\nip protocol tcp jump far\n}\n"
        'chain x {\ntype filter hook forward priority 0;\niifname vmap { "a" : accept, "b" : jump near }\n}\n}\n'
    )
    assert watched(place) == "chain x of table ip theirs has to see every packet (log)"


def test_what_was_read_holds_until_a_rule_set_changes(place: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = filter_rules._who_watches

    def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(filter_rules, "_who_watches", counted)
    with place.entered():
        watchers = Watchers(("inet polywan",), NOBODY)
        for change, reason, times in (("", "", 1), ("", "", 1), (WATCHING["limit"], "limit", 2), ("", "limit", 2)):
            place.nft(change)
            assert (reason in watchers.reason(), len(reads)) == (True, times)
        place.nft("delete table inet theirs\n")
        assert (watchers.reason(), len(reads)) == ("", 3)


def test_a_rule_set_that_is_too_large_to_be_read_is_not_trusted(place: Namespace) -> None:
    place.nft(chain(*["counter"] * 5000))
    assert watched(place) == "some rule may have to see every packet: of more than 4096 not all are read"


@pytest.mark.needs("iptables-nft")
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -j LOG"], ""),
        (["-A FORWARD -m state --state ESTABLISHED -j ACCEPT", "-A FORWARD -j LOG"], ""),
        (["-A FORWARD -m conntrack --ctstate NEW -j LOG", "-A FORWARD -p tcp -m tcp --dport 25 -j REJECT"], ""),
        (
            ["-A FORWARD -m conntrack ! --ctstate NEW -j LOG"],
            "chain FORWARD of table ip filter has to see every packet (log)",
        ),
        (["-A FORWARD -p tcp --syn -m limit --limit 1/s -j ACCEPT", "-A FORWARD -p tcp --syn -j DROP"], ""),
        (["-A FORWARD -p tcp ! --syn -j ACCEPT", "-A FORWARD -p tcp --tcp-flags ALL FIN,PSH,URG -j LOG"], ""),
        (
            ["-A FORWARD -p tcp --tcp-flags PSH PSH -j DROP"],
            "chain FORWARD of table ip filter has to see every packet (tcp flags)",
        ),
        (
            ["-A FORWARD -m limit --limit 1/s -j ACCEPT"],
            "chain FORWARD of table ip filter has to see every packet (limit)",
        ),
        (["-A FORWARD -m ttl --ttl-lt 3 -j DROP"], "chain FORWARD of table ip filter has to see every packet (ttl)"),
        (["-A FORWARD -m comment --comment all -m state --state ESTABLISHED -j ACCEPT", "-A FORWARD -j LOG"], ""),
        (["-t mangle -A POSTROUTING -j CONNMARK --save-mark"], ""),
        (
            ["-t mangle -A PREROUTING -j CONNMARK --restore-mark"],
            "chain PREROUTING of table ip mangle has to see every packet (CONNMARK)",
        ),
        (
            ["-t mangle -A FORWARD -j MARK --set-mark 1"],
            "chain FORWARD of table ip mangle has to see every packet (MARK)",
        ),
    ],
)
def test_rules_of_iptables_are_read_as_well(place: Namespace, rules: list[str], expected: str) -> None:
    for rule in rules:
        place.run(["iptables-nft", *rule.split()])
    # Some versions write native log statements, and some the older extension.
    assert watched(place).lower() == expected.lower()


def test_the_older_iptables_is_named_where_it_has_tables_and_where_nobody_may_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "ip_tables_names"
    names.write_text("")
    assert "iptables-legacy" not in Watchers(("inet polywan",), names).reason()
    names.write_text("filter\n")
    assert "iptables-legacy" in Watchers(("inet polywan",), names).reason()

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    names.write_text("")
    monkeypatch.setattr(Path, "read_text", refuse)
    assert "iptables-legacy" in Watchers(("inet polywan",), names).reason()
