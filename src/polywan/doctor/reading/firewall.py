"""Read the rules of every packet filter; no module is loaded, and no table made, by looking."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from polywan.core.errors import PolywanError
from polywan.core.firewall import iptables, nftables
from polywan.core.firewall.model import Firewall, Program, Table
from polywan.core.net import FAMILIES, Family
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.model import TABLE
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.doctor.reading.programs import listing, output

OURS: Final = (TABLE, KEEP_TABLE, FAST_TABLE)
_NAMES: Final = {Family.V4: Path("/proc/net/ip_tables_names"), Family.V6: Path("/proc/net/ip6_tables_names")}
"""Where the kernel names the tables of the older iptables."""


def read() -> tuple[Firewall, tuple[str, ...]]:
    """Return the rules of others, and what could not be read, for people.

    Raises:
        PolywanError: nft cannot be asked.
    """
    known = nftables.parse(
        listing(["nft", "--json", "list", "ruleset"], "nftables"),
        nftables.texts(output(["nft", "--handle", "list", "ruleset"], "nftables")),
    )
    unread: list[str] = []
    better: list[Table] = []
    for family in FAMILIES:
        name = "ip" if family is Family.V4 else "ip6"
        mine = [table for table in known if table.family == name]
        if any(table.opaque for table in mine):
            better += _saved("nft", family, "iptables", unread)
        elif any(nftables.of_iptables(table) for table in mine):
            better += _saved("nft", family, "iptables", [])
    legacy: list[Table] = []
    for family in filter(_has_legacy, FAMILIES):
        legacy += _saved("legacy", family, "iptables-legacy", unread)
    found = (*nftables.replaced(known, better), *legacy)
    return Firewall(tuple(table for table in found if f"{table.family} {table.name}" not in OURS)), tuple(unread)


def _saved(kind: str, family: Family, program: Program, unread: list[str]) -> tuple[Table, ...]:
    name = "iptables" if family is Family.V4 else "ip6tables"
    try:
        return iptables.parse(output([f"{name}-{kind}-save", "-c"], "iptables"), family, program)
    except PolywanError as error:
        unread.append(str(error))
        return ()


def _has_legacy(family: Family) -> bool:
    try:
        return bool(_NAMES[family].read_text("ascii", "replace").strip())
    except OSError:
        return False
