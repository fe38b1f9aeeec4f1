"""The journal's file: bounded, whole after a crash, and set aside when it is none."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from polywan.api.codec import decode, encode
from polywan.api.events import LinkEvent
from polywan.cli.events import text
from polywan.core.journal.changes import Standing
from polywan.core.journal.ends import Ends
from polywan.core.net import Family
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.rates import Counters
from polywan.core.status.stored_standing import StoredStanding, restored, restored_count, stored
from polywan.core.status.tally import Bytes, Count
from polywan.daemon import database, journal
from polywan.daemon.journal import EventQuery, Journal, JournalError, recorded

ALL = EventQuery(uplink=None, since=None, after=0, most=1000)

STANDING = Standing(
    uplink="fibre",
    interface="eth1",
    state=UplinkState.UP,
    reason="well",
    families={Family.V4: True},
    ends={Family.V4: Ends("192.0.2.2", "192.0.2.1")},
    since=100.0,
    ends_since=50.0,
)
COUNT = Count(now=Counters(5, 1000, 100), earlier=Bytes(7, 8), marks={"state": Bytes(9, 10), "ends": None})


def entry(number: int, uplink: str = "fibre", reason: str = "no carrier") -> LinkEvent:
    nothing = dict.fromkeys(LinkEvent.__fields__)
    known = {
        "id": number,
        "time": f"2026-11-30T08:00:{number % 60:02}.000+00:00",
        "uplink": uplink,
        "interface": "eth1",
        "event": "state",
        "state": "down",
        "reason": reason,
        "lasted_s": 12.5,
    }
    return decode(LinkEvent, {**nothing, **known})


def inherited(**change: object) -> StoredStanding:
    """What a daemon has left, with some of it changed."""
    return decode(StoredStanding, {**json.loads(json.dumps(encode(stored(STANDING, COUNT, "boot", 0.0)))), **change})


def add(file: Journal, *numbers: int, uplink: str = "fibre") -> None:
    file.append([(1000.0 + n, entry(n, uplink)) for n in numbers], [])


def numbers(file: Journal, wanted: EventQuery = ALL) -> list[int]:
    return [e.id for e in file.read(wanted)]


def test_entries_and_standings_are_there_for_the_next_daemon(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    assert first.load() == ([], 0)
    first.append([(1000.0, entry(1))], [stored(STANDING, COUNT, "boot", 500.0)])
    first.close()
    then = Journal(tmp_path)
    (kept,), last = then.load()
    assert last == 1
    assert restored(kept, 600.0).since == 0.0
    assert restored(kept, 500.0) == STANDING
    assert restored_count(kept, "boot") == Count(now=COUNT.now, earlier=COUNT.earlier, marks={"state": Bytes(9, 10)})
    assert restored_count(kept, "another boot") is None
    assert then.read(ALL) == [entry(1)]
    assert (tmp_path / journal.JOURNAL_FILE).stat().st_mode & 0o777 == 0o600


def test_what_was_added_already_is_not_added_again(tmp_path: Path) -> None:
    file = Journal(tmp_path)
    file.load()
    add(file, 1, 2)
    add(file, 1, 2, 3)
    assert numbers(file) == [1, 2, 3]


WRITER = """
import json, sys
from pathlib import Path
from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.daemon.journal import Journal

file = Journal(Path(sys.argv[1]))
number = file.load().last
while True:
    number += 1
    file.append([(1000.0, decode(LinkEvent, {**json.loads(sys.argv[2]), "id": number}))], [])
    print(number, flush=True)
"""
"""Adds entries for ever, and says which are on disk."""


def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_written(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WRITER, str(tmp_path), json.dumps(encode(entry(1)))]
    written = 0
    for more in (1, 7, 20):
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(more):
                written = int(process.stdout.readline())
            process.kill()
            # What it said before it was hit.
            written = max([written, *(int(line) for line in process.stdout.read().split())])
        file = Journal(tmp_path)
        last = file.load().last
        assert file.notices == []
        # One may be on disk of which it had no time to say so.
        assert last in (written, written + 1)
        assert numbers(file) == [*range(1, last + 1)]
        file.close()


def test_questions_are_by_uplink_time_and_number(tmp_path: Path) -> None:
    file = Journal(tmp_path)
    file.load()
    add(file, 1, 2, 3)
    add(file, 4, 5, uplink="dsl")
    assert numbers(file, EventQuery("dsl", None, None, 10)) == [4, 5]
    assert numbers(file, EventQuery(None, 1003.0, None, 10)) == [3, 4, 5]
    assert numbers(file, EventQuery(None, None, 3, 1)) == [4]
    assert numbers(file, EventQuery(None, None, None, 2)) == [4, 5]


def test_the_oldest_entries_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_ENTRIES", 5)
    file = Journal(tmp_path)
    file.load()
    for number in range(1, 21):
        add(file, number)
    assert numbers(file) == [16, 17, 18, 19, 20]


def test_the_file_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_ENTRIES", 500)
    file = Journal(tmp_path)
    file.load()
    sizes = []
    for turn in range(6):
        long = "x" * 500
        file.append([(1000.0, entry(n, reason=long)) for n in range(1 + 500 * turn, 501 + 500 * turn)], [])
        sizes.append((tmp_path / journal.JOURNAL_FILE).stat().st_size)
    # While entries are added there may be twice as many; the room of those that go is used again.
    assert max(sizes) < 1.1 * sizes[1]
    # So 20 000 of the longest are some 15 MB.
    assert sizes[-1] / 1000 < 750


def test_the_place_is_taken_by_something_else(tmp_path: Path) -> None:
    (tmp_path / journal.JOURNAL_FILE).write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    (tmp_path / f"{journal.JOURNAL_FILE}-journal").write_bytes(b"x")
    file = Journal(tmp_path)
    assert file.load() == ([], 0)
    (notice,) = file.notices
    assert "is damaged (file is not a database): it is now" in notice
    assert (tmp_path / journal.FILE_ASIDE).stat().st_size == 5016
    assert not (tmp_path / f"{journal.JOURNAL_FILE}-journal").exists()
    add(file, 1)
    assert numbers(file) == [1]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA user_version = -2", "is of another version (-2)"),
        ("PRAGMA user_version = 0", "is of another version (0)"),
        ("DROP TABLE standings", "is damaged (no such table: standings)"),
    ],
)
def test_tables_of_another_program_or_version_are_set_aside(tmp_path: Path, statement: str, said: str) -> None:
    before = Journal(tmp_path)
    before.load()
    before.close()
    with closing(sqlite3.connect(tmp_path / journal.JOURNAL_FILE)) as database:
        database.execute(statement)
    file = Journal(tmp_path)
    assert file.load() == ([], 0)
    assert said in file.notices[0]


def newer_file(folder: Path) -> bytes:
    """A journal as a newer polywan leaves it: another version, and SQLite's other way of writing."""
    before = Journal(folder)
    before.load()
    add(before, 1)
    before.close()
    path = folder / journal.JOURNAL_FILE
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"PRAGMA user_version = {journal.VERSION + 1}")
    return path.read_bytes()


def test_a_file_of_a_newer_polywan_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    content = newer_file(tmp_path)
    file = Journal(tmp_path)
    for use in (file.load, lambda: add(file, 2), lambda: numbers(file), lambda: recorded(tmp_path, ALL)):
        with pytest.raises(JournalError, match=r"written by a newer polywan \(version 2; .* up to version 1\)"):
            use()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {journal.JOURNAL_FILE: content}
    assert file.notices == []


def test_once_a_newer_file_is_moved_away_the_journal_begins(tmp_path: Path) -> None:
    newer_file(tmp_path)
    file = Journal(tmp_path)
    with pytest.raises(JournalError):
        file.load()
    (tmp_path / journal.JOURNAL_FILE).rename(tmp_path / "kept.db")
    add(file, 1)
    assert numbers(file) == [1]


MADE_UP = (("CREATE TABLE t (a)",), ("ALTER TABLE t ADD COLUMN b",), ("INSERT INTO t VALUES (1, 2)",))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_file_is_brought_up_version_by_version(version: int) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as tables:
        database.migrate(tables, 0, MADE_UP[:version])
        database.migrate(tables, version, MADE_UP)
        assert tables.execute("SELECT * FROM t").fetchall() == [(1, 2)]
        assert tables.execute("PRAGMA user_version").fetchone() == (3,)


def test_a_migration_that_fails_leaves_the_file_of_the_version_that_it_was(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as tables:
        database.migrate(tables, 0, MADE_UP[:1])
        with pytest.raises(sqlite3.Error):
            database.migrate(tables, 1, (*MADE_UP[:2], ("INSERT INTO nothing VALUES (1)",)))
        assert tables.execute("SELECT sql FROM sqlite_master").fetchall() == [("CREATE TABLE t (a)",)]
        assert tables.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_page_that_is_torn_later_is_noticed_then(tmp_path: Path) -> None:
    file = Journal(tmp_path)
    file.load()
    add(file, *range(1, 200))
    file.close()
    path = tmp_path / journal.JOURNAL_FILE
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xee" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    add(file, 200)
    assert numbers(file) == [200]
    assert len(file.notices) == 1


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / journal.JOURNAL_FILE).symlink_to(secret)
    file = Journal(tmp_path)
    file.load()
    add(file, 1)
    assert secret.read_text() == "secret"
    assert "is a symbolic link" in file.notices[0]


def test_what_was_recorded_is_read_without_writing_anything(tmp_path: Path) -> None:
    assert recorded(tmp_path / "nowhere", ALL) == []
    assert recorded(tmp_path, ALL) == []
    assert [*tmp_path.iterdir()] == []
    file = Journal(tmp_path)
    add(file, 1, 2, 3)
    before = (tmp_path / journal.JOURNAL_FILE).read_bytes()

    assert [e.id for e in recorded(tmp_path, EventQuery(None, 1002.0, None, 1000))] == [2, 3]

    file.close()
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {journal.JOURNAL_FILE: before}


@pytest.mark.parametrize(
    "content", [b"no database, but as long as the header of one: " + bytes(100), b"SQLite format 3"]
)
def test_a_record_that_is_none_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / journal.JOURNAL_FILE).write_bytes(content)
    with pytest.raises(JournalError, match=r"events\.db cannot be read: "):
        recorded(tmp_path, ALL)
    assert (tmp_path / journal.JOURNAL_FILE).read_bytes() == content


def test_a_record_behind_a_link_is_not_read(tmp_path: Path) -> None:
    add(Journal(tmp_path / "real"), 1)
    (tmp_path / journal.JOURNAL_FILE).symlink_to(tmp_path / "real" / journal.JOURNAL_FILE)
    with pytest.raises(JournalError, match="symbolic link"):
        recorded(tmp_path, ALL)


def test_a_place_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot be used: (not a directory|file exists)"):
        add(Journal(tmp_path / "file"), 1)


def test_rows_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    file = Journal(tmp_path)
    file.load()
    add(file, 1, 2)
    file.close()
    good = json.dumps(encode(stored(STANDING, COUNT, "boot", 0.0)))
    with closing(sqlite3.connect(tmp_path / journal.JOURNAL_FILE)) as database:
        database.execute("UPDATE entries SET lasted_s = 'long', rx_bytes = 'many' WHERE id = 1")
        for name, text in (("a", "{"), ("b", "[" * 5000), ("c", "{}"), ("d", good)):
            database.execute("INSERT INTO standings VALUES (?, ?)", (name, text))
        database.execute("INSERT INTO standings VALUES ('e', NULL)")
        database.commit()
    assert [one.uplink for one in Journal(tmp_path).load().standings] == ["fibre"]
    assert numbers(Journal(tmp_path)) == [2]


@pytest.mark.parametrize(
    "change",
    [
        {"since": float("nan")},
        {"ends_since": float("inf")},
        {"state": "upside down"},
        {"since": 10**400},
    ],
)
def test_standings_that_polywan_cannot_have_written_are_refused(change: dict[str, object]) -> None:
    kept = inherited(**change)
    with pytest.raises((ValueError, OverflowError)):
        restored(kept, 0.0)


@pytest.mark.parametrize("change", [{"rx": -5}, {"tx": 1 << 62}, {"earlier_rx": -1}, {"ifindex": None}])
def test_counters_that_polywan_cannot_have_written_are_unknown(change: dict[str, object]) -> None:
    kept = inherited(**change)
    assert restored_count(kept, "boot") is None


def test_a_mark_beyond_what_was_counted_is_unknown() -> None:
    kept = inherited(state_rx=1 << 40)
    count = restored_count(kept, "boot")
    assert count is not None
    assert count.since("state") is None


def tampered(tmp_path: Path, statement: str) -> Journal:
    """A file of two entries that somebody has changed."""
    before = Journal(tmp_path)
    before.append([(1000.0 + n, entry(n)) for n in (1, 2)], [stored(STANDING, COUNT, "boot", 0.0)])
    before.close()
    with closing(sqlite3.connect(tmp_path / journal.JOURNAL_FILE)) as database:
        database.execute(statement)
        database.commit()
    return Journal(tmp_path)


@pytest.mark.parametrize("number", [(1 << 53) + 1, (1 << 63) - 1])
def test_a_file_whose_numbers_have_come_to_an_end_is_set_aside(tmp_path: Path, number: int) -> None:
    file = tampered(tmp_path, f"INSERT INTO entries (id) VALUES ({number})")
    assert file.load() == ([], 0)
    assert "has a number that polywan does not reach: it is now" in file.notices[0]
    add(file, 1)
    assert numbers(file) == [1]


@pytest.mark.parametrize(
    "change",
    [
        "reason = CAST(x'ff41' AS TEXT)",
        "time = 'soon'",
        "time = '0001-01-01'",
        "lasted_s = 9e999",
        "lasted_s = 'long'",
        "rx_bytes = 1.5",
        "uplink = x'00ff'",
    ],
)
def test_a_row_that_makes_no_sense_keeps_no_other_one_from_being_read(tmp_path: Path, change: str) -> None:
    file = tampered(tmp_path, f"UPDATE entries SET {change} WHERE id = 1")
    assert numbers(file)[-1] == 2
    for found in file.read(ALL):
        assert text(found, 5).isprintable()


@pytest.mark.parametrize("values", [{"id": 1 << 64}, {"reason": "\ud800"}])
def test_a_value_that_the_file_does_not_take_is_an_error_in_words(tmp_path: Path, values: dict[str, object]) -> None:
    bad = decode(LinkEvent, {**encode(entry(1)), **values})
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(tmp_path).append([(1000.0, bad)], [])


@pytest.mark.parametrize("key", ["uplink", "interface", "address", "gateway6"])
def test_a_name_or_address_that_cannot_be_printed_is_as_if_it_were_not_there(key: str) -> None:
    with pytest.raises(ValueError, match="a text is no name"):
        restored(inherited(**{key: "u\ud8001"}), 0.0)


@pytest.mark.parametrize("what", ["directory", "link"])
def test_only_what_is_wrong_is_moved_and_what_was_set_aside_stays(tmp_path: Path, what: str) -> None:
    before = Journal(tmp_path)
    add(before, 1, 2)
    before.close()
    (tmp_path / journal.FILE_ASIDE).write_text("of an earlier accident")
    other = tmp_path / f"{journal.JOURNAL_FILE}-journal"
    if what == "directory":
        other.mkdir()
    else:
        other.symlink_to("/etc/passwd")
    file = Journal(tmp_path)
    assert numbers(file) == [1, 2]
    (notice,) = file.notices
    assert notice.startswith(f"{other} is ")
    assert notice.endswith(f": it is now {other}.aside")
    assert (tmp_path / journal.FILE_ASIDE).read_text() == "of an earlier accident"


def test_an_empty_file_replaces_nothing_that_was_set_aside(tmp_path: Path) -> None:
    (tmp_path / journal.FILE_ASIDE).write_text("of an earlier accident")
    (tmp_path / journal.JOURNAL_FILE).touch()
    (tmp_path / "other").hardlink_to(tmp_path / journal.JOURNAL_FILE)
    file = Journal(tmp_path)
    add(file, 1)
    assert numbers(file) == [1]
    assert (tmp_path / journal.FILE_ASIDE).read_text() == "of an earlier accident"
    assert "it was empty, and is gone, and a new journal begins" in file.notices[0]


def test_a_file_keeps_its_name_and_gives_it_to_the_one_that_follows_it(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    add(first, 1)
    first.close()
    (tmp_path / journal.JOURNAL_FILE).write_bytes(b"x" * 5000)
    add(first, 2)
    assert len(first.notices) == 1
    then = Journal(tmp_path)
    assert then.name != first.name
    then.load()
    assert then.name == first.name
