"""Files and processes of other programs are read, and what cannot be read is left out."""

from __future__ import annotations

import os
from pathlib import Path

from polywan.doctor.reading.files import programs
from polywan.doctor.reading.texts import LONGEST


def made(root: Path, name: str, text: str | bytes) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def process(proc: Path, number: str, name: str, network: str) -> None:
    made(proc, f"{number}/comm", f"{name}\n")
    (proc / number / "ns").mkdir()
    os.symlink(network, proc / number / "ns/net")


def test_only_processes_of_this_network_namespace_count(tmp_path: Path) -> None:
    for number, name, network in (("self", "doctor", "net:[1]"), ("1", "init", "net:[2]"), ("20", "pingu", "net:[1]")):
        process(tmp_path, number, name, network)

    found = programs(tmp_path / "root", tmp_path)

    assert (found.running, found.boots) == (frozenset({"pingu"}), False)


def test_parts_of_networkds_file_count_by_name_and_those_of_the_administrator_win(tmp_path: Path) -> None:
    made(tmp_path, "etc/systemd/networkd.conf", "main")
    made(tmp_path, "usr/lib/systemd/networkd.conf", "hidden")
    made(tmp_path, "usr/lib/systemd/networkd.conf.d/10-vendor.conf", "first")
    made(tmp_path, "usr/lib/systemd/networkd.conf.d/50-both.conf", "hidden")
    made(tmp_path, "etc/systemd/networkd.conf.d/50-both.conf", "last")

    assert list(programs(tmp_path).networkd.values()) == ["main", "first", "last"]


def test_links_that_networkd_has_set_up_are_known_by_index(tmp_path: Path) -> None:
    made(tmp_path, "run/systemd/netif/links/3", "ADMIN_STATE=configured\n")
    made(tmp_path, "run/systemd/netif/links/4", "ADMIN_STATE=unmanaged\n")

    assert programs(tmp_path).managed == {3}


def test_units_and_rule_files_are_found_and_no_binary_or_long_or_hanging_file_is_read_whole(tmp_path: Path) -> None:
    made(tmp_path, "etc/systemd/system/sysinit.target.wants/nftables.service", "")
    made(tmp_path, "etc/nftables.conf", "flush ruleset\n")
    made(tmp_path, "etc/nftables.d/binary.nft", b"\x7fELF\0")
    made(tmp_path, "etc/nftables.d/long.nft", "x" * (LONGEST + 1))
    os.mkfifo(tmp_path / "etc/nftables.d/pipe.nft")
    os.symlink("nowhere", tmp_path / "etc/nftables.d/gone.nft")

    found = programs(tmp_path)

    assert found.enabled == {"nftables.service"}
    assert {path: len(text) for path, text in found.files.items()} == {
        "/etc/nftables.conf": len("flush ruleset\n"),
        "/etc/nftables.d/long.nft": LONGEST,
    }
