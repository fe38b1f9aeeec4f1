"""nft looks up in /etc/protocols what it does not know itself, and a small system has no such file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TABLES = sorted(Path(__file__).parents[3].glob("golden/cases/*/ruleset.nft"))
NFT_KNOWS = {"tcp", "udp", "udplite", "icmp", "icmpv6", "esp", "ah", "comp", "dccp", "sctp"}
"""Words of its grammar (nft(8), "protocol")."""


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.parent.name)
def test_no_rule_needs_a_file_of_protocols(table: Path) -> None:
    matches = re.findall(r"l4proto (?:!= )?(\{[^}]*\}|[\w-]+)", table.read_text("utf-8"))
    words = {word for match in matches for word in re.findall(r"[\w-]+", match)}
    assert {word for word in words if not word.isdigit()} <= NFT_KNOWS
