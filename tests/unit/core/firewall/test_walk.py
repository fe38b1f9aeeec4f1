"""What rules do with a packet: rule sets as programs write them, and what is unknown stays unknown."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.firewall.iptables import parse
from polywan.core.firewall.model import Chain, Firewall, Other, Rule, Table
from polywan.core.firewall.passing import Passing
from polywan.core.firewall.walk import Outcome, outcome
from polywan.core.net import Family

TO_THE_INTERNET = Passing(
    family=Family.V4,
    in_device="lan0",
    out_device="wan0",
    source=ip_address("10.1.1.5"),
    destination=ip_address("198.51.100.7"),
    protocol="tcp",
    source_port=40000,
    port=443,
)

DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""


def tables(*lines: str, policy: str = "ACCEPT") -> Firewall:
    text = "\n".join(["*filter", f":FORWARD {policy} [0:0]", ":X - [0:0]", ":Y - [0:0]", *lines, "COMMIT"])
    return Firewall(parse(text, Family.V4, "iptables"))


def verdict(*lines: str, policy: str = "ACCEPT", packet: Passing = TO_THE_INTERNET) -> str:
    return outcome(tables(*lines, policy=policy), packet).verdict


def test_without_chains_everything_passes() -> None:
    assert outcome(Firewall(), TO_THE_INTERNET) == Outcome(
        "accept", None, None, None, "no chain is at the hook forward"
    )


def test_docker_drops_what_is_forwarded_between_other_networks() -> None:
    found = outcome(Firewall(parse(DOCKER, Family.V4, "iptables")), TO_THE_INTERNET)
    assert found.verdict == "drop"
    assert found.text == "the policy of chain FORWARD of table ip filter drops it"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"in_device": "docker0"}, "accept"),
        ({"out_device": "docker0", "destination": ip_address("172.17.0.2"), "port": 80}, "accept"),
        ({"out_device": "docker0", "destination": ip_address("172.17.0.2"), "port": 81}, "drop"),
        ({"in_device": None}, "unknown"),
    ],
)
def test_docker_lets_its_own_networks_pass(changed: dict[str, object], expected: str) -> None:
    packet = replace(TO_THE_INTERNET, **changed)  # type: ignore[arg-type]
    assert outcome(Firewall(parse(DOCKER, Family.V4, "iptables")), packet).verdict == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "accept"),
        ({"port": 80}, "drop"),
        ({"protocol": "udp"}, "drop"),
        ({"out_device": "wan1"}, "drop"),
        ({"port": None}, "unknown"),
    ],
)
def test_ufw_forwards_what_a_route_rule_allows(changed: dict[str, object], expected: str) -> None:
    """As ufw 0.36.2 wrote it for `ufw route allow in on lan0 out on wan0 proto tcp to any port 443`."""
    packet = replace(TO_THE_INTERNET, **changed)  # type: ignore[arg-type]
    text = (Path(__file__).parent / "ufw.rules").read_text()
    found = outcome(Firewall(parse(text, Family.V4, "iptables")), packet)
    assert found.verdict == expected
    if expected == "drop":
        assert found.text == "the policy of chain FORWARD of table ip filter drops it"


def test_the_other_family_has_tables_of_its_own() -> None:
    packet = Passing(family=Family.V6)
    assert outcome(Firewall(parse(DOCKER, Family.V4, "iptables")), packet).verdict == "accept"


def test_a_rule_that_may_accept_makes_a_drop_unknown_and_is_named() -> None:
    line = "-A FORWARD -m set --match-set guests src -j ACCEPT"
    found = outcome(tables(line, policy="DROP"), TO_THE_INTERNET)
    assert (found.verdict, found.rule and found.rule.text) == ("unknown", line)
    assert found.text == f'rule "{line}" in chain FORWARD of table ip filter may decide'


def test_a_rule_that_may_drop_does_not_matter_before_a_drop() -> None:
    assert verdict("-A FORWARD -m limit --limit 1/s -j DROP", policy="DROP") == "drop"


def test_a_port_that_is_not_asked_about_leaves_it_open() -> None:
    lines = ("-A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT",)
    assert verdict(*lines, policy="DROP") == "drop"
    assert verdict(*lines, policy="DROP", packet=replace(TO_THE_INTERNET, port=None)) == "unknown"
    assert verdict(*lines, policy="DROP", packet=replace(TO_THE_INTERNET, protocol="udp", port=None)) == "drop"


def test_a_new_connection_is_neither_established_nor_invalid() -> None:
    lines = (
        "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP",
    )
    assert verdict(*lines) == "accept"
    assert verdict(*lines, policy="DROP") == "drop"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("-A FORWARD -j X", "-A X -j RETURN", "-A X -j DROP"), "accept"),
        (("-A FORWARD -j X", "-A FORWARD -j ACCEPT", "-A X -i lan0 -j DROP"), "drop"),
        (("-A FORWARD -g X", "-A FORWARD -j DROP"), "accept"),
        (("-A FORWARD -j X", "-A FORWARD -j DROP", "-A X -g Y", "-A X -j ACCEPT"), "drop"),
        (("-A FORWARD -j X", "-A X -j REJECT"), "reject"),
        (("-A FORWARD -j NFQUEUE --queue-num 0",), "unknown"),
        (("-A FORWARD -j TARPIT",), "unknown"),
        (("-A FORWARD -j LOG", "-A FORWARD -j DROP"), "drop"),
        (("-A FORWARD -j X", "-A X -j Y", "-A Y -j X"), "unknown"),
        (("-A FORWARD -m statistic --mode nth --every 1 -j DROP",), "drop"),
        (("-A FORWARD -m statistic --mode nth --every 2 --packet 0 -j DROP",), "unknown"),
    ],
)
def test_jumps_and_verdicts(lines: tuple[str, ...], expected: str) -> None:
    assert verdict(*lines) == expected


def test_a_mark_that_rules_have_written_is_known_by_later_ones() -> None:
    lines = ("-A FORWARD -j MARK --set-xmark 0x10/0xf0", "-A FORWARD -m mark --mark 0x10/0xf0 -j DROP")
    assert verdict(*lines) == "drop"
    assert verdict(lines[1]) == "accept"
    doubtful = lines[0].replace("-j", "-m limit --limit 1/s -j")
    assert verdict(doubtful, lines[1]) == "unknown"


def test_a_mark_is_saved_on_the_connection_and_restored_from_it() -> None:
    lines = (
        "-A FORWARD -j MARK --set-mark 5",
        "-A FORWARD -j CONNMARK --save-mark",
        "-A FORWARD -j MARK --set-mark 0",
        "-A FORWARD -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
        "-A FORWARD -m mark --mark 5 -m connmark --mark 5 -j DROP",
    )
    assert verdict(*lines) == "drop"


def test_a_later_chain_drops_what_an_earlier_one_has_accepted() -> None:
    def table(name: str, priority: int, word: str) -> Table:
        chain = Chain("fwd", "filter", "forward", priority, "accept", (Rule(word, verdict=word),))  # type: ignore[arg-type]
        return Table("nftables", "inet", name, (chain,))

    for order in ((-10, 10), (10, -10)):
        found = outcome(Firewall((table("a", order[0], "accept"), table("b", order[1], "drop"))), TO_THE_INTERNET)
        assert (found.verdict, found.table and found.table.name) == ("drop", "b")


def test_ahead_of_connection_tracking_no_state_is_known() -> None:
    text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctstate NEW -j DROP\nCOMMIT\n"
    found = outcome(Firewall(parse(text, Family.V4, "iptables")), TO_THE_INTERNET, "prerouting")
    assert found.verdict == "unknown"


def test_more_chains_than_can_be_followed_are_not_waited_for() -> None:
    chains = [Chain(f"c{i}", rules=(Rule("", verdict="jump", target=f"c{i + 1}"),) * 9) for i in range(12)]
    base = Chain("fwd", "filter", "forward", 0, "accept", (Rule("", verdict="jump", target="c0"),))
    found = outcome(Firewall((Table("nftables", "inet", "t", (base, *chains, Chain("c12"))),)), TO_THE_INTERNET)
    assert found.verdict == "unknown"


KNOWN = st.sampled_from(
    ["-i lan0", "! -i lan0", "-p tcp --dport 443", "-p udp", "-s 10.0.0.0/8", "! -d 198.51.100.7", "-m mark --mark 1/1"]
)
TARGETS = st.sampled_from(
    ["-j ACCEPT", "-j DROP", "-j RETURN", "-j MARK --set-mark 1", "-j MARK --or-mark 2", "-j CONNMARK --save-mark"]
)
INTO = st.sampled_from(["-j X", "-g X", "-j Y", "-g Y"])


def rules_of(chain: str, targets: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.tuples(KNOWN, targets).map(lambda it: f"-A {chain} {it[0]} {it[1]}"), max_size=5)


RULES = st.tuples(rules_of("FORWARD", TARGETS | INTO), rules_of("X", TARGETS), rules_of("Y", TARGETS)).map(
    lambda parts: [line for part in parts for line in part]
)


@given(RULES, st.sampled_from(["ACCEPT", "DROP"]))
def test_all_is_known_when_all_is_said(lines: list[str], policy: str) -> None:
    assert verdict(*lines, policy=policy) in ("accept", "drop")


@given(
    RULES,
    st.sampled_from(["ACCEPT", "DROP"]),
    st.sets(st.sampled_from(["in_device", "source", "destination", "protocol", "port", "mark"])),
    st.sets(st.integers(0, 14)),
)
def test_what_is_sure_of_less_knowledge_is_true_of_the_packet(
    lines: list[str], policy: str, hidden: set[str], obscured: set[int]
) -> None:
    firewall = tables(*lines, policy=policy)
    less: dict[str, object] = dict.fromkeys(hidden)
    vague = [
        line.replace(" -j", " -m set --match-set x src -j", 1) if number in obscured else line
        for number, line in enumerate(lines)
    ]
    packet = replace(TO_THE_INTERNET, **less)  # type: ignore[arg-type]
    guessed = outcome(tables(*vague, policy=policy), packet).verdict
    assert guessed in ("unknown", outcome(firewall, TO_THE_INTERNET).verdict)


def test_a_condition_that_is_not_known_is_neither_met_nor_missed() -> None:
    rule = Rule("?", (Other("?"),), verdict="accept")
    chain = Chain("fwd", "filter", "forward", 0, "drop", (rule,))
    assert outcome(Firewall((Table("nftables", "ip", "t", (chain,)),)), TO_THE_INTERNET).verdict == "unknown"
