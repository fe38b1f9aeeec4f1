"""The difference between what should be and what is, as an ordered plan: make before break."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias, assert_never

from polywan.core.net import TABLE_MAIN, Family
from polywan.core.routing.nexthops import Nexthop, NexthopGroup, NexthopObject
from polywan.core.routing.routes import IpRule, Route
from polywan.core.routing.sysctls import Sysctl
from polywan.core.ruleset.model import NftState, NftTable, change_text, delete_text, in_force, new_texts, replace_text
from polywan.core.shaping.changes import ShapingOp, changes, describe_shaping, removal_of, step_of
from polywan.core.shaping.shapers import NONE_WANTED, Shapers
from polywan.core.world.foreign_chains import ForwardChain
from polywan.core.world.queues import Queues


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything polywan wants of the kernel, whole, every time.

    Attributes:
        dormant: those of `routes` that the kernel would refuse to make now, and keeps where it has them.
    """

    nexthops: frozenset[NexthopObject] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[IpRule] = frozenset()
    nft: NftTable
    sysctls: tuple[Sysctl, ...] = ()
    dormant: frozenset[Route] = frozenset()
    shapers: Shapers = NONE_WANTED


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualState:
    """What the kernel holds of ours.

    Attributes:
        nexthops: nexthop objects and groups with our protocol number.
        routes: routes with our protocol number, in any table.
        rules: policy rules with our protocol number.
        nft: our table, or None when it does not exist.
        sysctls: present values of the settings that were asked for; absent when the file does not exist.
        devices: index of each device at the moment when its settings were read: two of one name are two objects.
        chains: chains of others that may drop what is forwarded.
        queues: queueing disciplines, ours and those of others; None when nobody has looked.
    """

    nexthops: frozenset[NexthopObject] = frozenset()
    routes: frozenset[Route] = frozenset()
    rules: frozenset[IpRule] = frozenset()
    nft: NftState | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    chains: tuple[ForwardChain, ...] = ()
    queues: Queues | None = None


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write a kernel setting; `old` is the value it had, for the plan's reader and for `down`."""

    sysctl: Sysctl
    old: str


@dataclass(frozen=True, slots=True)
class PutNexthop:
    """Add the nexthop or group, or replace the one with the same id."""

    nexthop: NexthopObject


@dataclass(frozen=True, slots=True)
class DelNexthop:
    """Remove the nexthop or group. The kernel removes with it what refers to it alone: groups, and routes."""

    nexthop: NexthopObject


@dataclass(frozen=True, slots=True)
class PutRoute:
    """Add the route, or replace the one with the same key."""

    route: Route


@dataclass(frozen=True, slots=True)
class DelRoute:
    """Remove the route."""

    route: Route


@dataclass(frozen=True, slots=True)
class AddRule:
    """Add the policy rule."""

    rule: IpRule


@dataclass(frozen=True, slots=True)
class DelRule:
    """Remove the policy rule.

    Attributes:
        early: its successor differs in nothing but where it goes to. The kernel takes the two for the same rule, so
            that one has to leave before the other comes.
    """

    rule: IpRule
    early: bool = False


@dataclass(frozen=True, slots=True)
class NftBatch:
    """Run the text as one nft transaction: all of it or nothing.

    Attributes:
        inert: so many of its characters, from the beginning, are a transaction of their own that no packet meets. The
            kernel may be given it apart, while the operations before this one are carried out.
    """

    text: str
    inert: int = 0


Op: TypeAlias = SetSysctl | PutNexthop | DelNexthop | PutRoute | DelRoute | AddRule | DelRule | NftBatch | ShapingOp


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in the order in which they are safe."""

    ops: tuple[Op, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ops)


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel refused: errno(3) and its text."""

    op: Op
    errno: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport:
    """What became of a plan.

    Attributes:
        done: number of operations that succeeded.
        failures: those that did not; the others were carried out all the same.
        seconds: how long it took.
    """

    plan: Plan
    done: int
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def table_refused(self) -> bool:
        """True when a change of our table was refused."""
        return any(isinstance(failure.op, NftBatch) for failure in self.failures)


def phase(op: Op) -> int:
    """Order of an operation in a plan.

    Nexthops exist before groups of them, groups before routes by them, routes before rules point at them and rules
    before marks are given out; what is no longer wanted goes in the reverse order. After any prefix of a plan every
    mark that is given out finds its route. Queues come last: nothing waits for them.
    """
    if isinstance(op, ShapingOp):
        return 10 + step_of(op)
    match op:
        case SetSysctl():
            return 0
        case PutNexthop(nexthop):
            return 2 if isinstance(nexthop, NexthopGroup) else 1
        case PutRoute():
            return 3
        case AddRule() | DelRule(early=True):
            return 4
        case NftBatch():
            return 5
        case DelRule():
            return 6
        case DelRoute():
            return 7
        case DelNexthop(nexthop):
            return 8 if isinstance(nexthop, NexthopGroup) else 9
        case _:
            assert_never(op)


def diff(desired: DesiredState, actual: ActualState, *, whole: bool = False) -> Plan:
    """Return the plan that leads from `actual` to `desired`; empty when nothing differs.

    Args:
        desired: what should be.
        actual: what is.
        whole: our table, if it differs at all, is replaced instead of changed.
    """
    ops: list[Op] = [
        SetSysctl(s, actual.sysctls[s.path])
        for s in desired.sysctls
        if s.path in actual.sysctls and actual.sysctls[s.path] != s.value
    ]
    if desired.nexthops is not actual.nexthops:
        ops += [PutNexthop(n) for n in desired.nexthops - actual.nexthops]
        wanted = {n.id for n in desired.nexthops}
        ops += [DelNexthop(n) for n in actual.nexthops - desired.nexthops if n.id not in wanted]
    if desired.routes is not actual.routes:
        ops += [PutRoute(r) for r in desired.routes - actual.routes - desired.dormant]
        ops += _left_over(desired.routes, actual.routes)
    if desired.rules is not actual.rules:
        new = desired.rules - actual.rules
        ops += [AddRule(r) for r in new]
        twins = {anywhere(r) for r in new if r.goto is not None}
        ops += [DelRule(r, early=anywhere(r) in twins) for r in actual.rules - desired.rules]
    return ordered([*ops, *_table(desired.nft, actual.nft, whole=whole), *changes(desired.shapers, actual.queues)])


def _table(desired: NftTable, actual: NftState | None, *, whole: bool) -> Iterator[NftBatch]:
    text = "" if actual is None else change_text(desired, actual)
    if not in_force(actual) and (text or actual is None):
        inert, hooked = new_texts(desired)
        yield NftBatch(inert + hooked, len(inert))
    elif text:
        yield NftBatch(replace_text(desired) if whole else text)


@lru_cache(maxsize=4096)
def anywhere(rule: IpRule) -> IpRule:
    """Return a rule without where it goes to: all that the kernel compares when it looks for one (fib_rules.c)."""
    return replace(rule, goto=None)


def _left_over(desired: frozenset[Route], actual: frozenset[Route]) -> Iterator[DelRoute]:
    gone = actual - desired
    kept = {r.key for r in desired} if gone else set()
    places = {(r.family, r.table, r.metric): r for r in desired} if gone else {}
    for route in gone:
        successor = places.get((route.family, route.table, route.metric))
        # A route by a group and one by a device are told apart by nothing that a removal could say: what stands
        # there by then is the new one.
        replaced = successor is not None and (successor.nexthop or route.nexthop) is not None
        if route.key not in kept and not replaced:
            yield DelRoute(route)


def removal(actual: ActualState, sysctls: Iterable[Sysctl]) -> Plan:
    """Return the plan that leaves the kernel as found: nothing of ours, and the recorded settings back."""
    ops: list[Op] = [DelRule(r) for r in actual.rules]
    ops += [DelRoute(r) for r in actual.routes]
    ops += [DelNexthop(n) for n in actual.nexthops]
    if actual.nft is not None:
        ops.append(NftBatch(delete_text()))
    plan = ordered([*ops, *removal_of(actual.queues)])
    restore = [SetSysctl(s, actual.sysctls[s.path]) for s in sysctls if actual.sysctls.get(s.path, s.value) != s.value]
    return Plan((*plan.ops, *restore))


def ordered(ops: Iterable[Op]) -> Plan:
    """Sort operations by phase, and within a phase so that equal inputs give equal plans."""
    phases: dict[int, list[Op]] = {}
    for op in ops:
        phases.setdefault(phase(op), []).append(op)
    return Plan(
        tuple(op for _, some in sorted(phases.items()) for op in (sorted(some, key=_rank) if some[1:] else some))
    )


def _rank(op: Op) -> tuple[object, ...]:
    if isinstance(op, ShapingOp):
        return (op.device,)
    match op:
        case SetSysctl(sysctl):
            return (sysctl.path,)
        case PutNexthop(nexthop) | DelNexthop(nexthop):
            return (nexthop.id,)
        case PutRoute(route) | DelRoute(route):
            return (route.table, route.family, route.metric, route.link or "")
        # Rules that divert (goto) must not exist before their targets: last priority first.
        case AddRule(rule):
            return (-rule.priority, rule.family, 1, _Unlike(rule))
        case DelRule(rule, early=True):
            return (-rule.priority, rule.family, 0)
        case DelRule(rule):
            return (rule.priority, rule.family, _Unlike(rule))
        case NftBatch():
            return ()
        case _:
            assert_never(op)


class _Unlike:
    """A rule among others of its priority: they are compared as text, which most rules never need."""

    __slots__ = ("_rule",)

    def __init__(self, rule: IpRule) -> None:
        self._rule = rule

    def __lt__(self, other: _Unlike) -> bool:
        return self._text() < other._text()

    def _text(self) -> str:
        rule = self._rule
        return f"{rule.from_}|{rule.to}|{rule.iif}|{rule.oif}|{rule.mark}|{rule.table}|{rule.goto}"


def describe(op: Op) -> str:
    """One line for a person: the operation in the words of ip(8), nft(8), tc(8) and sysctl(8)."""
    if isinstance(op, ShapingOp):
        return describe_shaping(op)
    match op:
        case SetSysctl(sysctl, old):
            return f"sysctl {sysctl.path.replace('/', '.')} = {sysctl.value} (was {old})"
        case PutNexthop(nexthop):
            return f"+ nexthop {describe_nexthop(nexthop)}"
        case DelNexthop(nexthop):
            return f"- nexthop {describe_nexthop(nexthop)}"
        case PutRoute(route):
            return f"+ route {describe_route(route)}"
        case DelRoute(route):
            return f"- route {describe_route(route)}"
        case AddRule(rule):
            return f"+ rule  {describe_rule(rule)}"
        case DelRule(rule):
            return f"- rule  {describe_rule(rule)}"
        case NftBatch(text):
            return "nft\n" + "\n".join(f"    {line}" for line in text.rstrip("\n").split("\n"))
        case _:
            assert_never(op)


def headline(op: Op) -> str:
    """The first line of `describe`: a transaction's text may be pages."""
    return describe(op).partition("\n")[0]


def describe_nexthop(nexthop: NexthopObject) -> str:
    """The nexthop or group in the words of ``ip nexthop``."""
    if isinstance(nexthop, Nexthop):
        words = ["-6" if nexthop.family is Family.V6 else "-4", f"id {nexthop.id}"]
        words += [f"via {nexthop.via}"] if nexthop.via else []
        words.append(f"dev {nexthop.link}")
        words += ["onlink"] if nexthop.onlink else []
        return " ".join(words)
    members = "/".join(f"{ident},{weight}" for ident, weight in nexthop.members)
    kind = f"type resilient buckets {nexthop.buckets} idle_timer {nexthop.idle / 100:g}"
    return f"id {nexthop.id} group {members} {kind if nexthop.buckets else 'type mpath'}"


def describe_route(route: Route) -> str:
    """The route in the words of ``ip route``."""
    words = ["-6" if route.family is Family.V6 else "-4"]
    words.append(f"local {route.local}" if route.local else "blackhole default" if route.blackhole else "default")
    if route.nexthop is not None:
        words.append(f"nhid {route.nexthop}")
    if route.via:
        words.append(f"via {route.via}")
    if route.link:
        words.append(f"dev {route.link}")
    if route.source:
        words.append(f"src {route.source}")
    words.append(f"table {route.table} metric {route.metric}")
    if route.onlink:
        words.append("onlink")
    return " ".join(words)


def describe_rule(rule: IpRule) -> str:
    """The rule in the words of ``ip rule``."""
    words = ["-6" if rule.family is Family.V6 else "-4", f"{rule.priority}:"]
    words += ["not"] if rule.invert else []
    words.append(f"from {rule.from_ or 'all'}")
    words += [f"to {rule.to}"] if rule.to else []
    words += [f"fwmark {rule.mark[0]:#x}/{rule.mark[1]:#x}"] if rule.mark else []
    words += [f"iif {rule.iif}"] if rule.iif else []
    words += [f"oif {rule.oif}"] if rule.oif else []
    words += [f"ipproto {rule.ipproto}"] if rule.ipproto else []
    table = "main" if rule.table == TABLE_MAIN else rule.table
    words.append(f"goto {rule.goto}" if rule.goto is not None else f"lookup {table}")
    if rule.suppress_prefixlength is not None:
        words.append(f"suppress_prefixlength {rule.suppress_prefixlength}")
    return " ".join(words)
