"""A rule that is said to cover another takes every packet that the other would, whatever the world is like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.config import Match, SteeringRule
from polywan.config.loading.shadowed_rules import covers, never_matching
from polywan.config.model.steering_rule import WITH_PORTS
from support.examples import examples

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
V4 = [IPv4Address(f"10.0.{a}.{b}") for a in (0, 1) for b in (0, 1, 127, 128, 255)]
V6 = [IPv6Address(f"2001:db8:{a}::{b}") for a in (0, 1) for b in (0, 1)]
NETS = ["0.0.0.0/0", "10.0.0.0/23", "10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/24", "10.0.0.1/32"]
NETS += ["::/0", "2001:db8::/32", "2001:db8::/48", "2001:db8:1::/48", "2001:db8::1/128"]
NUMBERS = {"tcp": (6,), "udp": (17,), "icmp": (1, 58)}
GROUPS = ["a", "a/b", "a/b/c", "ab", "d"]
WINDOWS = ["mon", "mon-sun", "sat,sun", "22:00-06:00", "sun 22:00-06:00", "mon 00:00-06:00", "fri-mon", "08:00-18:00"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What names mean; names that are absent mean nothing."""

    lists: dict[str, frozenset[Any]]
    domains: dict[str, frozenset[Any]]
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A packet, as this test looks at it."""

    source: Any
    destination: Any
    protocol: int
    ports: tuple[int, int]
    device: str | None
    mac: str | None
    dscp: int
    mark: int
    user: int | None
    group: int | None
    cgroup: str | None
    at: datetime


def some(values: Sequence[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "from": some(NETS),
    "to": some(NETS),
    "protocol": st.sampled_from(list(NUMBERS)),
    "port": some([1, 80, 443, "80-443", "1-65535", "79-81"]),
    "source_port": some([1, "1-1023", "1024-65535"]),
    "in_interface": some(["lan0", "lan1"]),
    "dscp": some([0, "ef", "cs1"]),
    "mac": some(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
    "fwmark": st.sampled_from(["0/1", "1/1", "1/3", "3/3", "0x10/0x10", 1]),
    "user": some([0, 1000]),
    "group": some([0, 100]),
    "cgroup": some(GROUPS),
    "domains": some(["x.example", "y.example"]),
    "list": some(["/x", "/x/y"]),
    "time": some(WINDOWS),
    "family": st.sampled_from(["ipv4", "ipv6"]),
}
matches = st.lists(st.sampled_from(list(CONDITIONS)), max_size=3, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: CONDITIONS[key] for key in keys})
)
rules = st.builds(lambda own, other: {**own, "not": other}, matches, matches)


def packet(draw: Random) -> Seen:
    """Packets of the box have a user and no device; those of others have it the other way round."""
    own = draw.random() < 0.5
    pool: list[Any] = draw.choice([V4, V6])
    return Seen(
        source=draw.choice(pool),
        destination=draw.choice(pool),
        protocol=draw.choice([6, 6, 6, 17, 1, 58, 47]),
        ports=(draw.choice([1, 1024]), draw.choice([1, 79, 80, 81, 443, 444])),
        device=None if own else draw.choice(["lan0", "lan1", "lan2"]),
        mac=None if own else draw.choice([f"02:00:00:00:00:0{n}" for n in (1, 2, 3)]),
        dscp=draw.choice([0, 8, 46, 1]),
        mark=draw.choice([0, 1, 2, 3, 0x10, 0x11]),
        user=draw.choice([0, 1000, 1001]) if own else None,
        group=draw.choice([0, 100, 101]) if own else None,
        cgroup=draw.choice([*GROUPS, "e"]) if own else None,
        at=MONDAY
        + timedelta(days=draw.randrange(7), hours=draw.choice([0, 6, 8, 18, 22, 23]), seconds=draw.choice([0, -1])),
    )


PACKETS = [packet(Random(seed)) for seed in range(150)]
meanings = st.frozensets(st.sampled_from([*V4, *V6]), max_size=6)
worlds = st.builds(
    World,
    lists=st.dictionaries(st.sampled_from(["/x", "/x/y"]), meanings),
    domains=st.dictionaries(st.sampled_from(["x.example", "y.example"]), meanings),
    groups=st.just(frozenset(GROUPS)),
)


def made(tables: dict[str, Any]) -> SteeringRule:
    """Make a rule that a file may hold: without ports, unless the protocol has some."""
    absent: set[str] = set() if tables.get("protocol") in WITH_PORTS else {"port", "source_port"}
    kept = {key: value for key, value in tables.items() if key not in absent}
    excluded = {key: value for key, value in tables.get("not", {}).items() if key not in absent}
    return SteeringRule.model_validate({**kept, "not": excluded, "action": "block"})


def within_hours(at: datetime, match: Match) -> bool:
    """Look at the day on which a span began: today, or yesterday for what is past midnight."""
    second = at.hour * 3600 + at.minute * 60 + at.second
    for window in match.time:
        late = window.end <= window.start
        if at.weekday() in window.days and window.start <= second < (86400 if late else window.end):
            return True
        if late and (at.weekday() - 1) % 7 in window.days and second < window.end:
            return True
    return False


def answers(match: Match, p: Seen, world: World, protocol: str | None) -> dict[str, bool | None]:
    """Whether each condition holds; None when the packet has nothing that could be looked at."""
    has_ports = protocol in WITH_PORTS and p.protocol in NUMBERS[protocol]
    inside = [g for g in match.cgroup if g in world.groups and (p.cgroup == g or f"{p.cgroup}".startswith(f"{g}/"))]
    found: dict[str, bool | None] = {
        "from": any(p.source in n for n in match.from_),
        "to": any(p.destination in n for n in match.to),
        "protocol": p.protocol in NUMBERS.get(match.protocol or "", ()),
        "port": any(low <= p.ports[1] <= high for low, high in match.port) if has_ports else None,
        "source_port": any(low <= p.ports[0] <= high for low, high in match.source_port) if has_ports else None,
        "in_interface": None if p.device is None else p.device in match.in_interface,
        "dscp": p.dscp in match.dscp,
        "mac": None if p.mac is None else p.mac in match.mac,
        "fwmark": bool(match.fwmark) and p.mark & match.fwmark.mask == match.fwmark.value if match.fwmark else False,
        "user": None if p.user is None else p.user in {u.id for u in match.user},
        "group": None if p.group is None else p.group in {g.id for g in match.group},
        "cgroup": None if p.cgroup is None else bool(inside),
        "domains": any(p.destination in world.domains.get(name, ()) for name in match.domains),
        "list": any(p.destination in world.lists.get(name, ()) for name in match.list_),
        "time": within_hours(p.at, match),
        "family": match.family == f"ipv{p.source.version}",
    }
    fields = {"from": "from_", "list": "list_"}
    return {key: held for key, held in found.items() if getattr(match, fields.get(key, key))}


def matched(rule: SteeringRule, p: Seen, world: World, *, absent_is_not: bool) -> bool:
    """Ask the rule; `absent_is_not` says whether `not` holds of what a packet does not have."""
    wanted = answers(rule, p, world, rule.protocol).values()
    unwanted = answers(rule.not_, p, world, rule.protocol).values()
    return all(held is True for held in wanted) and all(
        held is False or (held is None and absent_is_not) for held in unwanted
    )


def loosened(tables: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """Leave conditions out, on both sides."""
    kept = {key: value for key, value in tables.items() if key == "not" or data.draw(st.booleans())}
    return {**kept, "not": {key: value for key, value in tables["not"].items() if data.draw(st.booleans())}}


def about(key: str) -> st.SearchStrategy[dict[str, Any]]:
    """Rules that ask for one property, exclude some of it, or both."""
    protocol = {"protocol": "tcp"} if key in ("port", "source_port") else {}
    asked = CONDITIONS[key].map(lambda value: {**protocol, key: value})
    excluded = CONDITIONS[key].map(lambda value: {key: value})
    return st.one_of(
        st.fixed_dictionaries({"own": asked, "other": st.just({})}),
        st.fixed_dictionaries({"own": st.just(protocol), "other": excluded}),
        st.fixed_dictionaries({"own": asked, "other": excluded}),
    ).map(lambda sides: {**sides["own"], "not": sides["other"]})


pairs = st.sampled_from(list(CONDITIONS)).flatmap(lambda key: st.tuples(about(key), about(key)))


def check(first: dict[str, Any], second: dict[str, Any], world: World) -> None:
    earlier, later = made(first), made(second)
    if not covers(earlier, later):
        return
    for absent_is_not in (False, True):
        for p in PACKETS:
            if matched(later, p, world, absent_is_not=absent_is_not):
                assert matched(earlier, p, world, absent_is_not=absent_is_not), (first, second, p)


@settings(max_examples=examples(400), deadline=None)
@given(pairs, worlds)
def test_what_covers_in_one_property_takes_every_packet(
    pair: tuple[dict[str, Any], dict[str, Any]], world: World
) -> None:
    check(*pair, world)


@settings(max_examples=examples(150), deadline=None)
@given(st.data(), rules, worlds)
def test_what_covers_takes_every_packet(data: st.DataObject, second: dict[str, Any], world: World) -> None:
    check({**loosened(second, data), **data.draw(matches)}, second, world)


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_a_rule_with_fewer_conditions_covers(data: st.DataObject) -> None:
    tables = data.draw(rules)
    assert covers(made(loosened(tables, data)), made(tables))


@settings(max_examples=examples(200), deadline=None)
@given(pairs, worlds)
def test_a_rule_that_is_said_to_contradict_itself_matches_nothing(
    pair: tuple[dict[str, Any], dict[str, Any]], world: World
) -> None:
    for rule in map(made, pair):
        if list(never_matching([rule])):
            assert not any(matched(rule, p, world, absent_is_not=True) for p in PACKETS)
