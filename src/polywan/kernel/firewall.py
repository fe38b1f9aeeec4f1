"""Reads the rules of other programs, without changing anything: no table is made, and no kernel module is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polywan.core.errors import PolywanError
from polywan.core.firewall.iptables import parse as parse_iptables
from polywan.core.firewall.model import Firewall, Program, Table
from polywan.core.firewall.nftables import parse as parse_nftables
from polywan.core.firewall.nftables import replaced
from polywan.core.net import FAMILIES, Family
from polywan.kernel.programs import output

_PROGRAMS: Final = {Family.V4: "iptables", Family.V6: "ip6tables"}


@dataclass(slots=True)
class Machine:
    """Where rules are read from; tests name other places.

    Attributes:
        run: runs a program of a package and returns what it prints.
        net: the files of the thread's network namespace; those of the process may be another's.
        proc: proc(5).
    """

    run: Callable[[Sequence[str], str], str] = output
    net: Path = Path("/proc/thread-self/net")
    proc: Path = Path("/proc")


def read_firewall(machine: Machine | None = None) -> tuple[Firewall, tuple[str, ...]]:
    """Read all tables of nft and both kinds of iptables in the thread's network namespace; needs root.

    Returns:
        The tables, ours among them, and a sentence for each program whose rules could not be read.
    """
    machine = machine or Machine()
    problems: list[str] = []
    tables: tuple[Table, ...] = ()
    if _nftables_is_there(machine.proc):
        tables = _listed(machine, problems)
    for family in FAMILIES:
        shown: tuple[Table, ...] = ()
        if any(table.opaque and table.family == family.header for table in tables):
            shown = _saved(machine, family, "iptables", problems)
        tables = replaced(tables, shown)
        if _has_legacy_tables(machine.net, family, problems):
            tables += _saved(machine, family, "iptables-legacy", problems)
    return Firewall(tables), tuple(problems)


def _listed(machine: Machine, problems: list[str]) -> tuple[Table, ...]:
    """Ask nft(8), not its library: that complains to the terminal of statements for which it has no JSON."""
    try:
        return parse_nftables(json.loads(machine.run(("nft", "--json", "list", "ruleset"), "nftables")))
    except PolywanError as error:
        problems.append(f"the rules of nftables cannot be read: {error}")
    except ValueError as error:
        problems.append(f"the rules of nftables cannot be read: its JSON makes no sense ({error})")
    return ()


def _nftables_is_there(proc: Path) -> bool:
    """False when the kernel has no nf_tables yet: a question would load it, and it has no rules."""
    try:
        modules = (proc / "modules").read_text(encoding="ascii", errors="replace")
    except OSError:  # a kernel that loads no modules
        return True
    if any(line.startswith("nf_tables ") for line in modules.splitlines()):
        return True
    with suppress(OSError), (proc / "kallsyms").open(encoding="ascii", errors="replace") as symbols:
        return any(" nf_tables_newtable" in line for line in symbols)
    return True


def _has_legacy_tables(net: Path, family: Family, problems: list[str]) -> bool:
    name = "ip_tables_names" if family is Family.V4 else "ip6_tables_names"
    try:
        return bool((net / name).read_text(encoding="ascii", errors="replace").strip())
    except FileNotFoundError:
        return False
    except OSError as error:
        problems.append(f"the rules of {_PROGRAMS[family]}-legacy cannot be read: {error.strerror}")
        return False


def _saved(machine: Machine, family: Family, program: Program, problems: list[str]) -> tuple[Table, ...]:
    kind = "nft" if program == "iptables" else "legacy"
    name = f"{_PROGRAMS[family]}-{kind}-save"
    try:
        return parse_iptables(machine.run((name, "-c"), "iptables"), family, program)
    except PolywanError as error:
        problems.append(f"the rules of {_PROGRAMS[family]}-{kind} cannot be read: {error}")
        return ()
