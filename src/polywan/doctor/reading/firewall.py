"""Read the rules of every packet filter but ours."""

from __future__ import annotations

from typing import Final

from polywan.core.firewall.model import Firewall
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.model import TABLE
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.kernel.firewall import read_firewall

OUR_TABLES: Final = (TABLE, KEEP_TABLE, FAST_TABLE)


def read() -> tuple[Firewall, tuple[str, ...]]:
    """Return the rules of others, and what could not be read, for people."""
    found, problems = read_firewall()
    tables = (table for table in found.tables if f"{table.family} {table.name}" not in OUR_TABLES)
    return Firewall(tuple(tables)), problems
