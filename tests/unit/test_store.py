from ipaddress import ip_address
from pathlib import Path

import pytest

from polywan.core.compile import Memory
from polywan.core.net import Family
from polywan.daemon import store

MEMORY = Memory(
    ids={"fibre": 1, "lte": 2},
    gateways={("fibre", Family.V4): ip_address("100.64.1.1"), ("lte", Family.V6): ip_address("fe80::1")},
    originals={"net/ipv4/conf/wan1/rp_filter": "1"},
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    store.save(tmp_path / "state", MEMORY)
    assert store.load(tmp_path / "state") == (MEMORY, "")


def test_without_a_file_nothing_is_remembered(tmp_path: Path) -> None:
    assert store.load(tmp_path) == (Memory(), "")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"ids": 3}', '{"ids": {}, "gateways": [[1]], "originals": {}}', "\x00"]
)
def test_a_damaged_file_is_ignored_and_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / store.FILE).write_text(text)
    memory, warning = store.load(tmp_path)
    assert memory == Memory()
    assert "ignored" in warning


def test_saving_leaves_no_temporary_file(tmp_path: Path) -> None:
    store.save(tmp_path, MEMORY)
    store.save(tmp_path, Memory())
    assert [p.name for p in tmp_path.iterdir()] == [store.FILE]


def test_forgetting_twice_is_fine(tmp_path: Path) -> None:
    store.save(tmp_path, MEMORY)
    store.forget(tmp_path)
    store.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []
