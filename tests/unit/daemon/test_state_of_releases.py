"""What earlier versions left in the state directory is understood by this one."""

from __future__ import annotations

import asyncio
import json
import shutil
from math import inf
from pathlib import Path

import pytest

from polywan import __version__
from polywan.core.measurements.tiers import TIERS
from polywan.core.measurements.volumes import StoredDevice, UplinkBytes
from polywan.core.quota.stored import stored as stored_quotas
from polywan.core.state.memory import Memory
from polywan.core.status.rates import Counters
from polywan.core.status.stored_standing import restored
from polywan.core.status.tally import Bytes
from polywan.core.trial import history
from polywan.daemon import store
from polywan.daemon.history import HISTORY_FILE, History
from polywan.daemon.journal import VERSION, EventQuery, Journal, recorded
from polywan.daemon.measurements.store import MEASUREMENTS_FILE, MEASUREMENTS_KIND, Store
from polywan.daemon.tasks.quotas import QUOTA_FILE, load_usages
from support.memories import MEMORY
from support.state_files import FOLDER, HISTORY, MEASURED, QUOTAS, STANDING, entries

RELEASES = sorted(path.name for path in FOLDER.iterdir())
FIRST = "before-0.1.0-first"
"""Of the first daemon of all, whose memory had three parts; the journal came later."""

KNOWN = {FIRST: Memory(ids=MEMORY.ids, gateways=MEMORY.gateways, originals=MEMORY.originals)}
ALL = EventQuery(uplink=None, since=None, after=0, most=100)


@pytest.fixture
def state(release: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / release, tmp_path / "state"))


@pytest.mark.parametrize("release", RELEASES)
def test_the_memory_of_every_release_is_understood_without_a_warning(release: str, state: Path) -> None:
    memory, warning = store.load(state)
    assert (memory, warning) == (KNOWN.get(release, MEMORY), "")
    store.save(state, memory)
    assert store.load(state) == (memory, "")


@pytest.mark.parametrize("release", [release for release in RELEASES if release != FIRST])
def test_the_journal_of_every_release_goes_on(release: str, state: Path) -> None:
    (one, two) = (entry for _, entry in entries())
    assert recorded(state, ALL) == [one, two]
    journal = Journal(state)
    standings, last = journal.load()
    assert ([restored(standing, 0.0) for standing in standings], last) == ([STANDING], 2)
    assert journal.read(ALL) == [one, two]
    assert journal.notices == []
    journal.close()


@pytest.mark.parametrize(
    "release", [release for release in RELEASES if (FOLDER / release / MEASUREMENTS_FILE).exists()]
)
def test_the_measurements_of_every_release_go_on(release: str, state: Path) -> None:
    store = Store(state)
    assert store.devices() == {"wan1": StoredDevice("boot", Counters(5, 1000, 100))}
    assert store.volumes([(0, inf)]) == [{"fibre": UplinkBytes(1000, 100, 10)}]
    assert store.clients(["2026-11"]) == [("2026-11", "192.0.2.7", Bytes(900, 90))]
    for tier in TIERS:
        ((_, name, point),) = store.points(tier, 0, 1 << 40, ["fibre"])
        assert (name, point) == ("fibre", MEASURED.seconds[1_795_852_800]["fibre"])
    assert store.notices == []
    store.close()


@pytest.mark.parametrize("release", [release for release in RELEASES if (FOLDER / release / HISTORY_FILE).exists()])
def test_the_history_of_every_release_is_listed(release: str, state: Path) -> None:
    found = History(state)
    asyncio.run(found.load())
    assert (found.entries, found.problem) == (HISTORY, "")


@pytest.mark.parametrize("release", [release for release in RELEASES if (FOLDER / release / QUOTA_FILE).exists()])
def test_the_use_of_quotas_of_every_release_goes_on(release: str, state: Path) -> None:
    assert load_usages(state) == QUOTAS


def test_this_version_has_kept_its_files() -> None:
    assert __version__ in RELEASES, f"write them with `make state-files`, and commit tests/data/state/{__version__}"


def test_the_files_that_this_version_has_kept_are_those_that_it_writes() -> None:
    memory = json.loads((FOLDER / __version__ / store.FILE).read_text(encoding="utf-8"))
    assert memory == json.loads(json.dumps(store._encode(MEMORY))), "write them anew with `make state-files`"
    past = json.loads((FOLDER / __version__ / HISTORY_FILE).read_text(encoding="utf-8"))
    assert past == history.stored(HISTORY), "write them anew with `make state-files`"
    used = json.loads((FOLDER / __version__ / QUOTA_FILE).read_text(encoding="utf-8"))
    assert used == json.loads(json.dumps(stored_quotas(QUOTAS))), "write them anew with `make state-files`"
    header = (FOLDER / __version__ / MEASUREMENTS_FILE).read_bytes()[:64]
    assert int.from_bytes(header[60:]) == MEASUREMENTS_KIND.version
    header = (FOLDER / __version__ / "events.db").read_bytes()[:64]
    assert int.from_bytes(header[60:]) == VERSION
