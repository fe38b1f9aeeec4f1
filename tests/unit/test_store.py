import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from polywan.config import Config
from polywan.core.admin import Order, Verb
from polywan.core.compile import Memory
from polywan.core.net import Family
from polywan.core.outages import History, Outage
from polywan.daemon import store
from polywan.daemon.main import remove
from polywan.kernel.fake import FakeKernel
from worlds import Daemon, config, world

MEMORY = Memory(
    ids={"fibre": 1, "lte": 2},
    gateways={("fibre", Family.V4): ip_address("100.64.1.1"), ("lte", Family.V6): ip_address("fe80::1")},
    originals={"net/ipv4/conf/wan1/rp_filter": "1"},
    orders={
        "fibre": Order(verb=Verb.DISABLE, since=1_800_000_000.5),
        "lte": Order(verb=Verb.DRAIN, since=1_800_000_000.0, until=1_800_000_600.0, empty=True),
    },
    leaving={("lte", Family.V4): 1_800_000_000.25},
    outages={
        "lte": History(
            day=20833,
            count=3,
            last=(
                Outage(began=1_800_000_000.0, lasted=None, reason="no carrier"),
                Outage(began=1_799_990_000.0, lasted=12.5, reason="no carrier"),
            ),
        )
    },
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


def test_a_file_of_an_older_version_is_understood(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text('{"ids": {"fibre": 1}, "gateways": [], "originals": {}}')
    assert store.load(tmp_path) == (Memory(ids={"fibre": 1}), "")


@pytest.mark.parametrize(
    "order",
    [
        {"verb": "enable", "since": 0, "until": None, "empty": False},
        {"verb": "drain", "since": 0, "until": None, "empty": False},
        {"verb": "disable", "since": 1e300, "until": None, "empty": False},
        {"verb": "disable", "since": float("nan"), "until": None, "empty": False},
        [],
    ],
)
def test_an_order_that_makes_no_sense_is_a_damaged_file(tmp_path: Path, order: object) -> None:
    text = json.dumps({"ids": {}, "gateways": [], "originals": {}, "orders": {"fibre": order}})
    (tmp_path / store.FILE).write_text(text)
    memory, warning = store.load(tmp_path)
    assert (memory, "ignored" in warning) == (Memory(), True)


def test_saving_leaves_no_temporary_file(tmp_path: Path) -> None:
    store.save(tmp_path, MEMORY)
    store.save(tmp_path, Memory())
    assert [p.name for p in tmp_path.iterdir()] == [store.FILE]


def test_forgetting_twice_is_fine(tmp_path: Path) -> None:
    store.save(tmp_path, MEMORY)
    store.forget(tmp_path)
    store.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "history",
    [
        [],
        {"day": 1, "count": 1, "last": [{"began": -1, "lasted": None, "reason": ""}]},
        {"day": 1, "count": 1, "last": [{"began": 0, "lasted": float("inf"), "reason": ""}]},
        {"day": None, "count": 1, "last": []},
    ],
)
def test_outages_that_make_no_sense_are_a_damaged_file(tmp_path: Path, history: object) -> None:
    text = json.dumps({"ids": {}, "gateways": [], "originals": {}, "outages": {"fibre": history}})
    (tmp_path / store.FILE).write_text(text)
    assert store.load(tmp_path)[0] == Memory()


def test_a_damaged_file_costs_more_than_marks_and_says_so(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text("{")
    assert "what kernel settings were before polywan is lost: `down` cannot restore them" in store.load(tmp_path)[1]
    assert store.lost(tmp_path)


def test_a_file_that_is_gone_is_lost_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    assert store.lost(tmp_path)
    store.save(tmp_path, MEMORY)
    assert not store.lost(tmp_path)


FORWARD = "net/ipv4/ip_forward"


@pytest.mark.parametrize("lost", [True, False])
def test_down_names_the_settings_whose_old_values_are_lost(tmp_path: Path, lost: bool) -> None:
    given = world(2)
    kernel = FakeKernel(links=given.links.values(), addresses=given.addresses, defaults=given.defaults)
    kernel.sysctls = {FORWARD: "0", "net/ipv4/conf/wan1/rp_filter": "1"}
    wanted = Config.model_validate({"uplinks": config(2).uplinks, "global": {"forwarding": True}})
    daemon = Daemon(wanted, given, kernel.read(list(kernel.sysctls)))
    for plan in daemon.plans():
        kernel.apply(plan.plan)
    assert kernel.sysctls[FORWARD] == "1"
    if not lost:
        store.save(tmp_path, daemon.state.memory)
    report = remove(kernel, tmp_path)
    assert kernel.sysctls[FORWARD] == ("1" if lost else "0")
    assert ("net.ipv4.ip_forward = 1" in report["unrestored"]) is lost
    assert remove(kernel, tmp_path)["unrestored"] == []
