"""Which rules can never match, because an earlier one takes every connection that they would.

Each condition looks at one property of a packet, and `not` is told apart by property as well. So a rule is a
product: for each property a set of values, what is asked for without what is excluded. One rule covers another
when each of its sets holds the other's; that is sound, and misses only what several rules cover together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from polywan.config.faults import ConfigFault
from polywan.config.kinds.addresses import IPNetwork, merged
from polywan.config.kinds.matches import FwMark, Window
from polywan.config.model.steering_rule import Match, SteeringRule

Ranges: TypeAlias = tuple[tuple[int, int], ...]

_MOST: Final = 1000
"""Rules that are compared, each with those before it; the time that it takes grows with the square."""

_DAY: Final = 86400
_WEEK: Final = 7 * _DAY
_TOP: Final = 1 << 129
_BITS: Final = {4: 32, 6: 128}


class Constraint(ABC):
    """The values of one property that a rule admits."""

    __slots__ = ()

    @property
    def empty(self) -> bool:
        """True when no value is admitted, which is known for certain."""
        return False

    @abstractmethod
    def within(self, wider: Constraint) -> bool:
        """True when every value that is admitted here is admitted there, whatever the world is like."""


Admitted: TypeAlias = Mapping[str, Constraint]
"""A rule in one family, by property; properties that may have any value are absent."""


@dataclass(frozen=True, slots=True)
class Spans(Constraint):
    """Whole numbers, as sorted ranges that include both ends and do not touch."""

    ranges: Ranges

    @property
    def empty(self) -> bool:
        """See `Constraint`."""
        return not self.ranges

    def within(self, wider: Constraint) -> bool:
        """See `Constraint`."""
        return isinstance(wider, Spans) and all(_holds(wider.ranges, low, high) for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class Among(Constraint):
    """Single values: one of these, or with `other` any but these."""

    values: frozenset[str | int]
    other: bool

    @property
    def empty(self) -> bool:
        """See `Constraint`."""
        return not self.values and not self.other

    def within(self, wider: Constraint) -> bool:
        """See `Constraint`."""
        if not isinstance(wider, Among):
            return False
        if self.other:
            return wider.other and wider.values <= self.values
        return self.values.isdisjoint(wider.values) if wider.other else self.values <= wider.values


@dataclass(frozen=True, slots=True)
class Named(Constraint):
    """Names whose meaning is looked up while the daemon runs: two of them may mean the same, or nothing.

    Attributes:
        nested: a name stands for all names below it as well, as control groups do.
    """

    any_of: frozenset[str]
    none_of: frozenset[str]
    nested: bool = False

    def within(self, wider: Constraint) -> bool:
        """See `Constraint`."""
        if not isinstance(wider, Named):
            return False
        asked = not wider.any_of or (bool(self.any_of) and all(self._under(n, wider.any_of) for n in self.any_of))
        return asked and all(self._under(n, self.none_of) for n in wider.none_of)

    def _under(self, name: str, names: frozenset[str]) -> bool:
        if name in names:
            return True
        parts = name.split("/") if self.nested else []
        return any("/".join(parts[:n]) in names for n in range(1, len(parts)))


@dataclass(frozen=True, slots=True)
class Marked(Constraint):
    """The packet mark: bits that have a value, and bits that do not have another."""

    asked: FwMark | None
    excluded: FwMark | None

    def within(self, wider: Constraint) -> bool:
        """See `Constraint`."""
        if not isinstance(wider, Marked):
            return False
        asked = wider.asked is None or (self.asked is not None and _implies(self.asked, wider.asked))
        return asked and (
            wider.excluded is None
            or (self.asked is not None and _differ(self.asked, wider.excluded))
            or (self.excluded is not None and _implies(wider.excluded, self.excluded))
        )


def covers(earlier: SteeringRule, later: SteeringRule) -> bool:
    """True when every packet that `later` matches is matched by `earlier`: certain if true, unknown if false."""
    return _covers(admitted(earlier), admitted(later))


def never_matching(rules: Sequence[SteeringRule]) -> Iterator[ConfigFault]:
    """Yield a warning for each rule that can never match: by itself, or because an earlier one covers it."""
    seen: list[Mapping[int, Admitted]] = []
    for place, rule in enumerate(rules[:_MOST]):
        here = admitted(rule)
        if not here:
            message = 'never matches: "not" excludes everything that the rule matches'
            yield ConfigFault(("rules", place), message, "remove the rule, or one of the contradicting conditions")
        else:
            earlier = next((n for n, there in enumerate(seen) if there and _covers(there, here)), None)
            if earlier is not None:
                yield ConfigFault(
                    ("rules", place),
                    "never matches: every connection it could match is already taken by",
                    "move the narrower rule before the wider one, or remove it",
                    other=("rules", earlier),
                )
        seen.append(here)


def admitted(rule: SteeringRule) -> dict[int, Admitted]:
    """Return what the rule admits, by IP version; a version with a property that admits nothing is left out."""
    both = {key: found for key, found in _properties(rule, rule.not_).items() if found is not None}
    if any(condition.empty for condition in both.values()):
        return {}
    result: dict[int, Admitted] = {}
    for version in _versions(rule):
        universe = (0, (1 << _BITS[version]) - 1)
        sides = {
            "from": _spans(_blocks(rule.from_, version), _blocks(rule.not_.from_, version), universe),
            "to": _spans(_blocks(rule.to, version), _blocks(rule.not_.to, version), universe),
        }
        if not any(side and side.empty for side in sides.values()):
            result[version] = {**both, **{key: side for key, side in sides.items() if side}}
    return result


def _covers(earlier: Mapping[int, Admitted], later: Mapping[int, Admitted]) -> bool:
    return all(
        version in earlier
        and earlier[version].keys() <= here.keys()
        and all(here[key].within(wider) for key, wider in earlier[version].items())
        for version, here in later.items()
    )


def _versions(rule: SteeringRule) -> set[int]:
    found = {version for version in _BITS if rule.family in (None, f"ipv{version}")}
    found -= {version for version in _BITS if rule.not_.family == f"ipv{version}"}
    for networks in (rule.from_, rule.to):
        if networks:
            found &= {network.version for network in networks}
    return found


def _properties(own: Match, excluded: Match) -> dict[str, Constraint | None]:
    """What is the same in both families; None where any value will do."""
    ports = (0, 65535)
    return {
        "protocol": _among(filter(None, [own.protocol]), filter(None, [excluded.protocol])),
        "port": _spans(own.port, excluded.port, ports),
        "source_port": _spans(own.source_port, excluded.source_port, ports),
        "in_interface": _among(own.in_interface, excluded.in_interface),
        "dscp": _among(own.dscp, excluded.dscp),
        "mac": _among(own.mac, excluded.mac),
        "fwmark": Marked(own.fwmark, excluded.fwmark) if own.fwmark or excluded.fwmark else None,
        "user": _among((u.id for u in own.user), (u.id for u in excluded.user)),
        "group": _among((g.id for g in own.group), (g.id for g in excluded.group)),
        "cgroup": _named(own.cgroup, excluded.cgroup, nested=True),
        "domains": _named(own.domains, excluded.domains),
        "list": _named(own.list_, excluded.list_),
        "time": _spans(_week(own.time), _week(excluded.time), (0, _WEEK - 1)),
    }


def _among(own: Iterable[str | int], excluded: Iterable[str | int]) -> Among | None:
    asked, unwanted = frozenset(own), frozenset(excluded)
    if asked:
        return Among(asked - unwanted, other=False)
    return Among(unwanted, other=True) if unwanted else None


def _named(own: Collection[str], excluded: Collection[str], *, nested: bool = False) -> Named | None:
    return Named(frozenset(own), frozenset(excluded), nested) if own or excluded else None


def _spans(own: Ranges, excluded: Ranges, universe: tuple[int, int]) -> Spans | None:
    ranges = _without(own or (universe,), excluded)
    return None if ranges == (universe,) else Spans(ranges)


def _blocks(networks: Iterable[IPNetwork], version: int) -> Ranges:
    """Addresses of one version, as numbers; a rule that asks for the other version only is not asked for this one."""
    return merged((int(n.network_address), int(n.broadcast_address)) for n in networks if n.version == version)


def _week(windows: Iterable[Window]) -> Ranges:
    """Seconds of the week from Monday, 00:00 on."""
    found = []
    for window in windows:
        length = window.end - window.start + (_DAY if window.end <= window.start else 0)
        for day in window.days:
            low = day * _DAY + window.start
            high = low + length - 1
            found += [(low, high)] if high < _WEEK else [(low, _WEEK - 1), (0, high - _WEEK)]
    return merged(found)


def _holds(ranges: Ranges, low: int, high: int) -> bool:
    at = bisect_right(ranges, (low, _TOP)) - 1
    return at >= 0 and high <= ranges[at][1]


def _without(ranges: Ranges, holes: Ranges) -> Ranges:
    remaining: list[tuple[int, int]] = []
    for start, high in ranges:
        low = start
        at = max(0, bisect_right(holes, (low, _TOP)) - 1)
        while at < len(holes) and holes[at][0] <= high:
            if low < holes[at][0]:
                remaining.append((low, holes[at][0] - 1))
            low = max(low, holes[at][1] + 1)
            at += 1
        if low <= high:
            remaining.append((low, high))
    return tuple(remaining)


def _implies(mark: FwMark, wider: FwMark) -> bool:
    """True when every mark that matches the first matches the second."""
    return not wider.mask & ~mark.mask and mark.value & wider.mask == wider.value


def _differ(mark: FwMark, other: FwMark) -> bool:
    """True when no mark matches both."""
    return bool((mark.value ^ other.value) & mark.mask & other.mask)
