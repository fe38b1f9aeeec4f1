"""Reading other programs' rules: which programs are asked, and what is said when one has no answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from polywan.core.errors import KernelError, MissingFeature
from polywan.core.firewall.model import Firewall
from polywan.kernel import firewall
from polywan.kernel.firewall import Machine, _printed, _Unreadable, read_firewall

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
    def run(command: Sequence[str]) -> str:
        asked.append(tuple(command))
        return SAVED

    def make(listing: object, modules: str = "nf_tables 1 0 - Live 0x0\n") -> tuple[Firewall, tuple[str, ...]]:
        def listed() -> object:
            if isinstance(listing, Exception):
                raise listing
            return listing

        (tmp_path / "modules").write_text(modules)
        (tmp_path / "kallsyms").write_text("0000000000000000 T nf_register_net_hook\n")
        return read_firewall(Machine(listed, run, tmp_path, tmp_path))

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
    ("error", "sentence"),
    [
        (MissingFeature("libnftables"), "the rules of nftables cannot be read: libnftables is missing"),
        (KernelError("nft", 1, "not permitted"), "the rules of nftables cannot be read: nft: not permitted"),
    ],
)
def test_what_cannot_be_read_is_said(
    read: Callable[..., tuple[Firewall, tuple[str, ...]]], error: Exception, sentence: str
) -> None:
    assert read(error) == (Firewall(), (sentence,))


def test_a_missing_program_leaves_the_table_as_nft_shows_it(tmp_path: Path) -> None:
    def run(command: Sequence[str]) -> str:
        return _printed((f"no-such-{command[0]}",))

    found, problems = read_firewall(Machine(lambda: OF_IPTABLES, run, tmp_path, tmp_path))
    assert [table.opaque for table in found.tables] == [True]
    why = "no-such-iptables-nft-save is not installed (package iptables)"
    assert problems == (f"the rules of iptables-nft cannot be read: {why}",)


def test_what_a_program_prints_is_read_to_its_end() -> None:
    assert _printed((sys.executable, "-c", "print('x' * 200000)")) == "x" * 200000 + "\n"


def test_a_program_that_fails_has_printed_nothing_that_counts() -> None:
    with pytest.raises(_Unreadable, match="failed: exit status 3"):
        _printed((sys.executable, "-c", "print(1); raise SystemExit(3)"))


def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "_TIMEOUT", 0.2)
    with pytest.raises(_Unreadable, match=r"did not end within 0\.2 s"):
        _printed((sys.executable, "-c", "import time; time.sleep(60)"))


def test_a_program_that_prints_without_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "_MOST_BYTES", 1 << 20)
    with pytest.raises(_Unreadable, match="prints more than 1 MiB"):
        _printed((sys.executable, "-c", "while True: print('x' * 1000)"))
