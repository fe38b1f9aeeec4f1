import json
import os
from pathlib import Path

import pytest

from polywan.config import Config
from polywan.core.errors import NewerError
from polywan.core.net import Family
from polywan.core.state.memory import Memory
from polywan.daemon import store
from polywan.daemon.removing import recalled, remove
from polywan.kernel.fake.kernel import FakeKernel
from support.daemons import kernel_of
from support.engine_world import Engine, config, world
from support.memories import MEMORY


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


NEWER = '{"version": 2, "ids": {"fibre": {"mark": 1}}, "of the future": []}'


def test_a_file_of_a_newer_polywan_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / store.FILE
    path.write_text(NEWER)
    for ask in (store.load, store.lost, lambda folder: recalled(FakeKernel(), folder)):
        with pytest.raises(NewerError) as refused:
            ask(tmp_path)
        assert str(refused.value) == (
            f"{path} was written by a newer polywan (version 2; this polywan reads up to version 1): install the newer "
            f"polywan again, or move the file away; without it, {store.LOST}. The file was not changed"
        )
    assert path.read_text() == NEWER


def test_down_removes_all_but_a_file_of_a_newer_polywan(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text(NEWER)
    kernel = kernel_of(2)
    for plan in Engine(config(2), world(2)).plans():
        kernel.apply(plan.plan)
    kernel.sysctls["net/ipv4/conf/all/accept_local"] = "1"
    done = remove(kernel, tmp_path)
    assert (kernel.nft, list(kernel.rules), list(kernel.routes)) == (None, [], [])
    assert "net.ipv4.conf.all.accept_local = 1" in done.unrestored
    (problem,) = done.problems
    assert "was written by a newer polywan" in problem
    assert (tmp_path / store.FILE).read_text() == NEWER


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


GOOD = json.dumps(store._encode(MEMORY))


def changed(**parts: object) -> str:
    return json.dumps(json.loads(GOOD) | parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "brackets are nested too deeply"),
        ('{"ids": ' + '{"a":' * 100_000, "brackets are nested too deeply"),
        (" " * (store.LARGEST_MEMORY + 1), "larger than 4 MiB"),
        ("9" * 5000, "ignored"),
    ],
)
def test_a_file_that_nobody_could_read_to_its_end_is_ignored(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / store.FILE).write_text(text)
    memory, warning = store.load(tmp_path)
    assert memory == Memory()
    assert message in warning


def test_what_is_no_file_is_neither_waited_for_nor_followed(tmp_path: Path) -> None:
    path = tmp_path / store.FILE
    os.mkfifo(path)
    assert "is not a regular file" in store.load(tmp_path)[1]
    path.unlink()
    (tmp_path / "elsewhere").write_text(GOOD)
    path.symlink_to("elsewhere")
    assert "is a symbolic link" in store.load(tmp_path)[1]
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a symbolic link" in store.load(tmp_path)[1]
    path.unlink()
    os.link(tmp_path / "elsewhere", path)
    assert "has more than one hard link" in store.load(tmp_path)[1]
    path.unlink()
    path.mkdir()
    assert "is a directory" in store.load(tmp_path)[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_than_its_directory_is_not_believed(tmp_path: Path) -> None:
    store.save(tmp_path, MEMORY)
    os.chown(tmp_path / store.FILE, 4242, 4242)
    assert "belongs to another user than its directory" in store.load(tmp_path)[1]
    os.chown(tmp_path, 4242, 4242)
    assert store.load(tmp_path) == (MEMORY, "")


def test_of_two_names_with_one_number_the_first_keeps_it(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text(changed(ids={"fibre": 2, "lte": 2, "dsl": 1, "cable": 0, "x": 1e3}))
    memory, warning = store.load(tmp_path)
    assert memory.ids == {"fibre": 2, "dsl": 1}
    assert warning == f"{tmp_path / store.FILE}: ignored invalid values in ids; marks may change"


def test_what_makes_sense_is_kept_beside_what_does_not(tmp_path: Path) -> None:
    orders = json.loads(GOOD)["orders"] | {"dsl": {"verb": "enable"}}
    rows = {"leaving": [["lte"], ["lte", 4, 5]]}
    (tmp_path / store.FILE).write_text(changed(mask=-1, orders=orders, gateways=7, **rows))
    memory, warning = store.load(tmp_path)
    assert (memory.ids, memory.originals, memory.orders) == (MEMORY.ids, MEMORY.originals, MEMORY.orders)
    assert (memory.mask, memory.gateways, memory.drains) == (None, {}, {("lte", Family.V4): 5.0})
    assert "ignored invalid values in mask, gateways, orders, leaving; marks may change; operator commands" in warning
    assert not store.lost(tmp_path)


@pytest.mark.parametrize(
    "original",
    [
        {"kernel/hostname": "written-by-root"},
        {"kernel/core_pattern": "|/tmp/x"},
        {"../../etc/passwd": "1"},
        {"net/ipv4/ip_default_ttl": "17"},
        {"net/ipv4/conf/all/accept_local": "1\n2"},
        {"net/ipv4/ip_forward": 1},
    ],
)
def test_a_setting_that_polywan_cannot_have_written_is_neither_believed_nor_restored(
    tmp_path: Path, original: dict[str, object]
) -> None:
    (tmp_path / store.FILE).write_text(changed(originals={**MEMORY.originals, **original}))
    memory, warning = store.load(tmp_path)
    assert memory.originals == MEMORY.originals
    assert "originals; the old values of kernel settings are lost" in warning
    kernel = FakeKernel()
    kernel.sysctls = dict.fromkeys((*MEMORY.originals, *original), "0")
    remove(kernel, tmp_path)
    assert kernel.sysctls == {**dict.fromkeys(original, "0"), **MEMORY.originals}


def test_a_damaged_file_costs_more_than_marks_and_says_so(tmp_path: Path) -> None:
    (tmp_path / store.FILE).write_text("{")
    assert "the old values of kernel settings are lost: `down` cannot restore them" in store.load(tmp_path)[1]
    assert store.lost(tmp_path)


def test_a_file_that_is_gone_is_lost_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    assert store.lost(tmp_path)
    store.save(tmp_path, MEMORY)
    assert not store.lost(tmp_path)


FORWARD = "net/ipv4/ip_forward"


@pytest.mark.parametrize("lost", [True, False])
def test_down_names_the_settings_whose_old_values_are_lost(tmp_path: Path, lost: bool) -> None:
    kernel = kernel_of(2)
    kernel.sysctls = {FORWARD: "0", "net/ipv4/conf/wan1/rp_filter": "1"}
    wanted = Config.model_validate({"uplinks": config(2).uplinks, "global": {"forwarding": True}})
    daemon = Engine(wanted, world(2), kernel.read(list(kernel.sysctls)))
    for plan in daemon.plans():
        kernel.apply(plan.plan)
    assert kernel.sysctls[FORWARD] == "1"
    if not lost:
        store.save(tmp_path, daemon.state.known.memory)
    report = remove(kernel, tmp_path)
    assert kernel.sysctls[FORWARD] == ("1" if lost else "0")
    assert ("net.ipv4.ip_forward = 1" in report.unrestored) is lost
    assert remove(kernel, tmp_path).unrestored == ()
