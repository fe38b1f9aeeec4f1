"""What libnftables writes is what the kernel looks up, whatever its version."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from polywan.config import load
from polywan.core.ruleset.model import (
    TABLE,
    Chain,
    Hook,
    NftMap,
    NftRule,
    NftTable,
    change_text,
    replace_text,
    state_of,
)
from polywan.core.ruleset.policies import KEY_CHECK
from polywan.daemon.offline import parse
from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.netlink.socket import attribute, attributes, text, walk
from polywan.kernel.nft.libnftables import Nftables
from polywan.kernel.requirements import missing_key_order, swaps_keys
from polywan.lab.namespaces import Namespace
from support.engine_world import Engine
from support.machine.trees import TreeError, tree
from support.nft_versions import OtherNftables

CASES = sorted(p for p in (Path(__file__).parents[1] / "golden/cases").iterdir() if p.is_dir())
INSTALLED = "installed here"


def library(name: str) -> Nftables:
    if name == INSTALLED:
        return Nftables()
    try:
        return OtherNftables(tree(name))
    except TreeError as error:
        pytest.skip(f"no other libnftables: {error}")


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    made = Namespace(name)
    made.create()
    try:
        with made.entered():
            yield made
    finally:
        made.delete()


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespace("versions") as made:
        yield made


@pytest.fixture(params=[INSTALLED, "bookworm", "trixie", "sid"])
def nft(space: Namespace, request: pytest.FixtureRequest) -> Iterator[Nftables]:
    with closing(library(request.param)) as found:
        yield found


def decided(case: Path, *, swapped_keys: bool) -> NftTable:
    recording = parse((case / "observed.json").read_bytes(), "observed.json")
    observed = replace(recording.observed, swapped_keys=swapped_keys)
    desired = Engine(load(case / "config.toml"), observed, recording.actual()).state.decision.desired
    assert desired is not None
    return desired.nft


def elements() -> dict[str, set[tuple[bytes, bytes]]]:
    """Return keys and values of all sets and maps of our table, as the kernel has them."""
    ours = b"\x01\0\0\0" + attribute(1, TABLE.split()[1].encode() + b"\0")
    found: dict[str, set[tuple[bytes, bytes]]] = {}
    with netfilter() as netlink:
        names = [text(attributes(message.body, 4)[2]) for message in netlink.snapshot(10 << 8 | 10, ours)]
        for name in names:
            members = found.setdefault(name, set())
            for message in netlink.snapshot(10 << 8 | 13, ours + attribute(2, name.encode() + b"\0")):
                body = attributes(message.body, 4).get(3, b"")
                for _, start, end in walk(body, 0, len(body)):
                    parts = attributes(body[start:end])
                    members.add((parts.get(1, b"") + parts.get(10, b""), parts.get(2, b"")))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_every_set_and_map_is_stored_as_it_was_decided_and_as_the_installed_library_stores_it(
    nft: Nftables, case: Path
) -> None:
    desired = decided(case, swapped_keys=swaps_keys(nft))
    nft.run(replace_text(desired))
    assert nft.list_table() == state_of(desired)
    stored = elements()
    # 1.0.6 ends its process when it reads what a later version wrote.
    with namespace("installed"), closing(Nftables()) as installed:
        installed.run(replace_text(decided(case, swapped_keys=swaps_keys(installed))))
        assert stored == elements()


def test_a_table_that_was_written_without_asking_becomes_right_at_once_and_stays_so(nft: Nftables) -> None:
    case = next(p for p in CASES if p.name == "each_algorithm_chooses_in_its_own_way")
    nft.run(replace_text(decided(case, swapped_keys=False)))
    desired = decided(case, swapped_keys=swaps_keys(nft))
    nft.run(change_text(desired, nft.list_table()))
    assert nft.list_table() == state_of(desired)
    assert change_text(desired, nft.list_table()) == ""


@pytest.mark.parametrize("choice", ["numgen inc mod 3", "numgen random mod 3", "jhash ip saddr . udp sport mod 3"])
def test_every_packet_finds_its_slot(nft: Nftables, space: Namespace, choice: str) -> None:
    slots = NftMap(KEY_CHECK.type, {n: f"goto slot_{n}" for n in range(3)}, swapped=swaps_keys(nft))
    counted = {f"slot_{n}": Chain((NftRule("counter accept", "found"),)) for n in range(3)}
    rules = (NftRule(f"udp dport 9 {choice} vmap @slots", "look up"),)
    output = {"check": Chain(rules, Hook("filter", "output", 0))}
    nft.run(replace_text(NftTable(chains={**counted, **output}, maps={"slots": slots})))
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(30):
            sender.sendto(b"", ("127.0.0.1", 9))
    packets = counters()
    assert sum(packets) == 30
    if "inc" in choice:
        assert packets == [10, 10, 10]


def counters() -> list[int]:
    """Return how many packets each slot's chain has counted, straight from the kernel's rules."""
    ours = b"\x01\0\0\0" + attribute(1, TABLE.split()[1].encode() + b"\0")
    found: dict[str, int] = {}
    with netfilter() as netlink:
        for message in netlink.snapshot(10 << 8 | 7, ours):
            rule = attributes(message.body, 4)
            for _, start, end in walk(rule[4], 0, len(rule[4])):
                expression = attributes(rule[4][start:end])
                if text(expression[1]) == "counter":
                    found[text(rule[2])] = int.from_bytes(attributes(expression[2])[2], "big")
    return [found[chain] for chain in sorted(found)]


def test_no_version_that_can_be_had_is_refused_and_the_question_leaves_nothing(nft: Nftables, space: Namespace) -> None:
    assert list(missing_key_order(nft)) == []
    assert space.run(["nft", "list", "tables"]).stdout == ""
