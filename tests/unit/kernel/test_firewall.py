"""Reading other programs' rules: which programs are asked, and what is said when one has no answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from polywan.core.errors import MissingFeature, PolywanError
from polywan.core.firewall.model import Firewall
from polywan.kernel.firewall import Machine, read_firewall
from polywan.kernel.programs import output

SAVED = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i lan0 -j ACCEPT\nCOMMIT\n"
CHAIN = {"family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0}
NATIVE: dict[str, object] = {"nftables": [{"chain": CHAIN}]}
OF_IPTABLES: dict[str, object] = {
    "nftables": [
        {"chain": CHAIN},
        {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [{"xt": {"type": "match"}}]}},
    ]
}


@pytest.fixture
def asked() -> list[tuple[str, ...]]:
    return []


@pytest.fixture
def read(tmp_path: Path, asked: list[tuple[str, ...]]) -> Callable[..., tuple[Firewall, tuple[str, ...]]]:
    def make(listing: object, modules: str = "nf_tables 1 0 - Live 0x0\n") -> tuple[Firewall, tuple[str, ...]]:
        def run(command: Sequence[str], _: str) -> str:
            if command[0] == "nft":
                if isinstance(listing, Exception):
                    raise listing
                return listing if isinstance(listing, str) else json.dumps(listing)
            asked.append(tuple(command))
            return SAVED

        (tmp_path / "modules").write_text(modules)
        (tmp_path / "kallsyms").write_text("0000000000000000 T nf_register_net_hook\n")
        return read_firewall(Machine(run, tmp_path, tmp_path))

    return make


def test_tables_that_nft_shows_whole_need_no_other_program(
    read: Callable[..., tuple[Firewall, tuple[str, ...]]], asked: list[tuple[str, ...]]
) -> None:
    found, problems = read(NATIVE)
    assert [table.program for table in found.tables] == ["nftables"]
    assert (problems, asked) == ((), [])


def test_iptables_is_asked_where_nft_shows_extensions_of_it(
    read: Callable[..., tuple[Firewall, tuple[str, ...]]], asked: list[tuple[str, ...]]
) -> None:
    found, problems = read(OF_IPTABLES)
    assert [(table.program, table.chains[0].policy) for table in found.tables] == [("iptables", "drop")]
    assert (problems, asked) == ((), [("iptables-nft-save", "-c")])


def test_iptables_legacy_is_asked_only_where_it_has_tables(
    read: Callable[..., tuple[Firewall, tuple[str, ...]]], asked: list[tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "ip_tables_names").write_text("")
    (tmp_path / "ip6_tables_names").write_text("filter\n")
    found, _ = read(NATIVE)
    assert asked == [("ip6tables-legacy-save", "-c")]
    assert [(table.program, table.family) for table in found.tables] == [("nftables", "ip"), ("iptables-legacy", "ip6")]


def test_a_kernel_without_nf_tables_is_not_asked_since_that_would_load_it(
    read: Callable[..., tuple[Firewall, tuple[str, ...]]],
) -> None:
    assert read(AssertionError(), modules="ext4 1 0 - Live 0x0\n") == (Firewall(), ())


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (MissingFeature("nft is not installed"), "the rules of nftables cannot be read: nft is not installed"),
        (PolywanError("nft: not permitted"), "the rules of nftables cannot be read: nft: not permitted"),
        ("{", "the rules of nftables cannot be read: its JSON makes no sense"),
    ],
)
def test_what_cannot_be_read_is_said(
    read: Callable[..., tuple[Firewall, tuple[str, ...]]], answer: object, sentence: str
) -> None:
    found, (problem,) = read(answer)
    assert (found, problem.startswith(sentence)) == (Firewall(), True)


def test_a_missing_program_leaves_the_table_as_nft_shows_it(tmp_path: Path) -> None:
    def run(command: Sequence[str], package: str) -> str:
        return json.dumps(OF_IPTABLES) if command[0] == "nft" else output((f"no-such-{command[0]}",), package)

    found, problems = read_firewall(Machine(run, tmp_path, tmp_path))
    assert [table.opaque for table in found.tables] == [True]
    why = "no-such-iptables-nft-save is not installed (package iptables)"
    assert problems == (f"the rules of iptables-nft cannot be read: {why}",)
