"""Other programs on a box: which run, what their files say, and by which names and marks their rules are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    Chain,
    Choose,
    Firewall,
    MarkIs,
    MarkOf,
    Rule,
    SetMark,
    Statistic,
    Table,
)
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.model import TABLE
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.core.world.foreign_routing import WHOLE, ForeignRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFacts:
    """What was found of other programs.

    Attributes:
        running: their names as ps(1) has them (15 characters at most), in this network namespace.
        boots: the machine's first process is in this network namespace too, so that units and cron jobs act here.
        enabled: units that start with the machine.
        managed: indexes of the links that systemd-networkd has set up.
        networkd: its files, by path, in the order in which they count.
        files: rule files of nft(8), by path.
    """

    running: frozenset[str] = frozenset()
    boots: bool = False
    enabled: frozenset[str] = frozenset()
    managed: frozenset[int] = frozenset()
    networkd: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


class Known(NamedTuple):
    """A program by what its rules look like.

    Attributes:
        chains, tables: how names of its chains and tables begin.
        marks: value and mask of marks that no other program uses.
    """

    name: str
    chains: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    marks: tuple[tuple[int, int], ...] = ()


PROGRAMS: Final = (
    Known("Docker", ("DOCKER",), ("docker-",)),
    Known("Tailscale", ("ts-",), marks=((0x4_0000, 0xFF_0000), (0x8_0000, 0xFF_0000))),
    Known("Cilium", ("CILIUM_", "OLD_CILIUM_"), marks=tuple((n << 8, 0xF00) for n in range(1, 16))),
    Known("Kubernetes", ("KUBE-",), ("kube-proxy",), ((0x4000, 0x4000), (0x8000, 0x8000))),
    Known("Calico", ("cali-",), ("calico",)),
    Known("Istio", ("ISTIO_",), marks=((1337, WHOLE), (1337, 0xFFF))),
    Known("mwan3", ("mwan3_",), marks=((0x3F00, 0x3F00), (0x3E00, 0x3F00), (0x3D00, 0x3F00))),
    Known("mwan4", ("mwan4_",), ("mwan4",)),
    Known("pbr", ("pbr_",), marks=((0x1_0000, 0xFF_0000), (0x2_0000, 0xFF_0000), (0x3_0000, 0xFF_0000))),
    Known("VyOS's load balancing", ("wlb_",), ("vyos_wanloadbalance",)),
    Known("Shorewall", ("routemark",)),
    Known("wg-quick", (), ("wg-quick-",), tuple((0xCA6C + n, WHOLE) for n in range(8))),
    Known("NetBird", ("NETBIRD-", "netbird-"), ("netbird",), ((0x1_BD00, WHOLE),)),
    Known("Mullvad VPN", (), ("mullvad",), ((0x6D6F_6C65, WHOLE),)),
    Known("firewalld", (), ("firewalld",)),
    Known("ufw", ("ufw-", "ufw6-")),
    Known("fail2ban", ("f2b-",), ("f2b-",)),
    Known("libvirt", ("LIBVIRT_",), ("libvirt",)),
    Known("OpenWrt's firewall", (), ("fw4",)),
)


def is_ours(table: Table) -> bool:
    """Tell whether polywan made a table."""
    return table.program == "nftables" and f"{table.family} {table.name}" in (TABLE, KEEP_TABLE, FAST_TABLE)


def maker_of(table: Table, chain: Chain | None = None) -> str:
    """Return whose table or chain it is; empty when its names are nobody's."""
    by_chain = (known.name for known in PROGRAMS if chain is not None and chain.name.startswith(known.chains))
    by_table = (known.name for known in PROGRAMS if table.name.startswith(known.tables))
    return next(by_chain, "") or next(by_table, "")


def maker_of_mark(value: int, mask: int) -> str:
    """Return whose mark it is; empty when it may be anybody's."""
    return next((known.name for known in PROGRAMS if (value, mask) in known.marks), "")


def maker_of_rule(rule: ForeignRule) -> str:
    """Return who made a policy rule, by its mark; empty when nobody knows."""
    return maker_of_mark(*rule.mark) if rule.mark is not None else ""


class MarkUse(NamedTuple):
    """A rule that writes or compares a mark.

    Attributes:
        program: whose rule it is; empty when nobody knows.
        writes: it writes the mark, otherwise it compares.
        invert: it matches any other value.
        balances: it writes to some connections only, in turns or by chance.
    """

    program: str
    table: Table
    chain: Chain
    rule: Rule
    of: MarkOf
    writes: bool
    value: int
    mask: int
    invert: bool = False
    balances: bool = False

    @property
    def where(self) -> str:
        """Table, chain and rule, for people."""
        return f"{self.table.program}, {self.table}, chain {self.chain.name}: {self.rule.text}"


def mark_uses(firewall: Firewall) -> Iterator[MarkUse]:
    """Yield what rules of others do with marks."""
    for table in firewall.tables:
        for chain in table.chains if not is_ours(table) else ():
            for rule in chain.rules:
                yield from _uses(table, chain, rule)


def _uses(table: Table, chain: Chain, rule: Rule) -> Iterator[MarkUse]:
    maker = maker_of(table, chain)
    chosen = any(isinstance(match, Statistic) for match in rule.matches)

    def use(of: MarkOf, value: int, mask: int, **more: bool) -> MarkUse:
        return MarkUse(maker or maker_of_mark(value, mask), table, chain, rule, of, value=value, mask=mask, **more)

    for match in rule.matches:
        if isinstance(match, MarkIs):
            yield use(match.of, match.value, match.mask, writes=False, invert=match.invert)
    for action in rule.actions:
        if isinstance(action, SetMark):
            yield use(action.of, action.value, action.mask, writes=True, balances=chosen)
        elif isinstance(action, Choose):
            for value, _ in action.shares:
                yield use(action.of, value, ALL_MARK_BITS, writes=True, balances=True)


def removal(rule: ForeignRule) -> tuple[str, ...] | None:
    """Return the command that removes a policy rule, and no other; None when it has parts that nobody knows."""
    words = _selectors(rule)
    return None if words is None else (*_start(rule, "del"), "priority", str(rule.priority), *words)


def addition(rule: ForeignRule, priority: int) -> tuple[str, ...] | None:
    """Return the command that adds the same rule with another priority; None as for `removal`."""
    words = _selectors(rule)
    return None if words is None else (*_start(rule, "add"), "priority", str(priority), *words)


def _start(rule: ForeignRule, verb: str) -> tuple[str, ...]:
    return ("ip", f"-{rule.family}", "rule", verb)


def _selectors(rule: ForeignRule) -> tuple[str, ...] | None:
    """Return the rule as ip-rule(8) reads it, without its priority."""
    if rule.unknown or rule.l3mdev or rule.action == "other":
        return None
    text = rule.text().partition(": ")[2].removesuffix(" [unresolved]")
    return tuple(text.split())
