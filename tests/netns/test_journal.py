"""The journal of links, by the real daemon: what is recorded, what it is worth after accidents, and what it costs."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from polywan.api import calls
from polywan.api.events import Events, LinkEvent
from polywan.api.requests import OfEvents
from polywan.daemon.journal import JOURNAL_FILE
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.traffic import SteadyLoad
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor


def quick(lab: Lab) -> str:
    """Return a configuration under which an uplink is back within two seconds."""
    text = configuration(lab.topology, (1, 1, 1))
    return text.replace('hold_down = "3s"', 'hold_down = "1s"\nrise = 2', 1)


def entries(daemon: DaemonProcess, uplink: str | None = None, **asked: str) -> list[LinkEvent]:
    return [*answer(daemon, uplink, **asked).events]


def answer(daemon: DaemonProcess, uplink: str | None = None, **asked: str) -> Events:
    return daemon.client.ask(calls.JOURNAL, OfEvents(uplink=uplink, **asked))


def has(daemon: DaemonProcess, uplink: str, state: str) -> Callable[[], bool]:
    return lambda: bool(found := entries(daemon, uplink)) and found[-1].state == state


def stored(daemon: DaemonProcess) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(daemon.state / JOURNAL_FILE)) as database:
        return database.execute("SELECT uplink, state FROM entries ORDER BY id").fetchall()


def on_disk(daemon: DaemonProcess, row: tuple[str, str]) -> Callable[[], bool]:
    def written() -> bool:
        try:
            return row in stored(daemon)
        except sqlite3.Error:
            return False

    return written


@contextmanager
def disk_of(directory: Path, kilobytes: int) -> Iterator[None]:
    """Give a directory a disk of its own, of that size."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_pulled_cable_is_recorded_with_reason_duration_and_bytes(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, quick(lab))

    async def story() -> None:
        async with SteadyLoad(lab):
            await until(lambda: daemon.uplink(1).rx_bytes > 20_000)
            before = daemon.uplink(1)
            lab.cut(1)
            await until(has(daemon, "isp1", "down"))
            lab.restore(1)
            await until(has(daemon, "isp1", "up"))
        found, lost, back = entries(daemon, "isp1")
        assert (found.event, found.previous_state, found.state, found.lasted_s) == ("found", None, "up", None)
        assert (lost.event, lost.previous_state, lost.state) == ("state", "up", "down")
        assert lost.reason == "no carrier"
        assert (lost.previous_ipv4, lost.ipv4, lost.previous_ipv6, lost.ipv6) == ("up", "down", "up", "down")
        assert lost.rx_bytes is not None
        # What went by before the daemon's first look is not its to count.
        assert 0 < lost.rx_bytes <= before.rx_bytes + 50_000
        assert (back.previous_state, back.state, back.address) == ("down", "up", found.address)
        assert back.lasted_s is not None
        assert back.lasted_s > 1.0
        assert back.rx_bytes is not None
        assert back.rx_bytes < 20_000
        numbers = [entry.id for entry in entries(daemon)]
        assert numbers == sorted(set(numbers))

    with_servers(lab, story)


def test_a_device_that_is_made_anew_with_another_address_is_one_story(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    """As a PPP session that ends, and the next one."""
    daemon = start_daemon(lab, quick(lab))
    provider = lab.topology.uplink(1).provider
    lab.router.run(["ping", "-c", "5", "-i", "0.05", "-s", "1000", "-I", "wan1", "100.64.1.1"], check=False)
    wait_for(lambda: daemon.uplink(1).rx_bytes > 5000)
    lab.router.ip(["link delete wan1"])
    wait_for(has(daemon, "isp1", "missing"))
    lab.router.ip([f"link add wan1 type veth peer name wan netns {provider}"])
    lab.provider(1).ip(["addr add 100.64.1.1/24 dev wan", "addr add 2001:db8:64:1::1/64 dev wan nodad"])
    lab.provider(1).ip(["link set wan up"])
    lab.router.ip(["addr add 100.64.1.77/24 dev wan1", "addr add 2001:db8:64:1::77/64 dev wan1 nodad"])
    lab.router.ip(["link set wan1 up"])
    lab.router.ip(["route add default via 100.64.1.1 dev wan1 metric 101"])
    lab.router.run(["ip", "-6", "route", "add", "default", "via", "2001:db8:64:1::1", "dev", "wan1", "metric", "101"])

    async def story() -> None:
        await until(has(daemon, "isp1", "up"), timeout=20.0)

    with_servers(lab, story)
    found, *rest = entries(daemon, "isp1")
    gone, back = rest[0], rest[-1]
    assert (gone.previous_state, gone.previous_address) == ("up", "100.64.1.2")
    assert "missing" in [entry.state for entry in rest]
    assert back.address == "100.64.1.77"
    assert {entry.previous_address for entry in rest} <= {"100.64.1.2", "100.64.1.77"}
    assert all(entry.rx_bytes is not None and 0 <= entry.rx_bytes < 10**6 for entry in rest)
    for before, after in pairwise([found, *rest]):
        assert (before.state, before.address) == (after.previous_state, after.previous_address)


def test_what_happened_while_no_daemon_ran_is_found_by_the_next_one(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab))
    first = entries(daemon)
    daemon.stop()
    lab.cut(2)
    daemon.start()
    # They are found once bytes were counted, a moment after the start.
    wait_for(lambda: len(entries(daemon, after=str(first[-1].id))) == 3)
    (found,) = entries(daemon, "isp2", after=str(first[-1].id))
    assert (found.event, found.previous_state, found.state, found.reason) == ("found", "up", "down", "no carrier")
    assert found.lasted_s is not None
    assert found.rx_bytes is not None
    (same,) = entries(daemon, "isp3", after=str(first[-1].id))
    assert (same.event, same.previous_state, same.state) == ("found", "up", "up")
    lab.cut(3)
    wait_for(has(daemon, "isp3", "down"))
    lost = entries(daemon, "isp3")[-1]
    # It was up all the while, as far as anybody knows.
    assert lost.lasted_s is not None
    assert same.lasted_s is not None
    assert lost.lasted_s > same.lasted_s
    assert lost.rx_bytes is not None
    assert same.rx_bytes is not None
    assert lost.rx_bytes >= same.rx_bytes
    assert [e.id for e in entries(daemon)] == [*range(1, 8)]


def test_a_daemon_that_is_killed_loses_no_more_than_the_last_seconds(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab))
    wait_for(on_disk(daemon, ("isp3", "up")))
    for number in (1, 2):
        lab.cut(number)
        wait_for(has(daemon, f"isp{number}", "down"))
        # In the middle of whatever it does: entering, waiting to write, writing.
        daemon.kill()
        lab.restore(number)
        daemon.start()
        wait_for(has(daemon, f"isp{number}", "up"), timeout=10.0)
    chain = entries(daemon, "isp1")
    for before, after in pairwise(chain):
        assert (before.state, before.ipv4, before.address) == (
            after.previous_state,
            after.previous_ipv4,
            after.previous_address,
        )
    with closing(sqlite3.connect(daemon.state / JOURNAL_FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_stops_nothing_and_what_happened_meanwhile_is_caught_up(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    daemon = start_daemon(lab, quick(lab), may_complain=True)
    daemon.stop()
    with disk_of(daemon.state, 256):
        daemon.start()
        wait_for(on_disk(daemon, ("isp3", "up")))
        ballast = daemon.state / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        pulled = lab.cut(1)
        line = daemon.wait_log(lambda text: "isp1 is down: no carrier" in text, 5.0)
        assert line is not None
        assert line.at - pulled < 1.0
        wait_for(lambda: any("journal is not on disk" in text for text in daemon.status().warnings), timeout=10.0)
        assert entries(daemon, "isp1")[-1].state == "down"
        ballast.unlink()
        wait_for(on_disk(daemon, ("isp1", "down")), timeout=20.0)
        wait_for(lambda: not any("journal" in text for text in daemon.status().warnings))
        said = [text for text in (line.text for line in daemon.log) if "journal." in text]
        assert [text.partition("journal.")[2].partition(":")[0] for text in said] == ["unwritable", "written"]
        daemon.stop()


def test_a_file_that_is_none_is_set_aside_in_one_sentence(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab))
    wait_for(on_disk(daemon, ("isp3", "up")))
    daemon.stop()
    path = daemon.state / JOURNAL_FILE
    content = path.read_bytes()
    path.write_bytes(content[:100] + os.urandom(len(content) // 2))
    daemon.start()
    said = [line.text for line in daemon.log if "journal." in line.text]
    assert len(said) == 1
    assert "events.db.aside, and a new journal begins" in said[0]
    lab.cut(1)
    wait_for(on_disk(daemon, ("isp1", "down")), timeout=10.0)


def test_a_file_of_a_newer_polywan_is_not_touched_and_the_journal_begins_once_it_is_moved_away(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab), may_complain=True)
    wait_for(on_disk(daemon, ("isp3", "up")))
    daemon.stop()
    path = daemon.state / JOURNAL_FILE
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 77")
    content = path.read_bytes()
    daemon.start()
    lab.cut(1)
    wait_for(has(daemon, "isp1", "down"))
    wait_for(lambda: any("written by a newer polywan (version 77" in text for text in daemon.status().warnings))
    assert [each.name for each in daemon.state.iterdir() if each.name.startswith(JOURNAL_FILE)] == [JOURNAL_FILE]
    assert path.read_bytes() == content
    path.rename(daemon.state / "kept.db")
    wait_for(on_disk(daemon, ("isp1", "down")), timeout=20.0)


def test_a_directory_that_cannot_be_written_is_read_all_the_same(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab), may_complain=True)
    daemon.stop()
    with disk_of(daemon.state, 1024):
        daemon.start()
        wait_for(on_disk(daemon, ("isp3", "up")))
        daemon.stop()
        subprocess.run(["mount", "-o", "remount,ro", daemon.state], check=True)
        daemon.start()
        lab.cut(1)
        wait_for(has(daemon, "isp1", "down"))
        wait_for(lambda: answer(daemon).problem != "", timeout=10.0)
        assert [e.event for e in entries(daemon, "isp1")] == ["found", "found", "state"]
        daemon.stop()


def test_follow_prints_what_happens_as_it_happens_and_ctrl_c_ends_it(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab))
    argv = [sys.executable, "-m", "polywan", "events", "--follow", "--json", "--runtime-dir", str(daemon.runtime)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        known = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [one["uplink"] for one in known] == ["isp1", "isp2", "isp3"]
        pulled = lab.cut(2)
        line = json.loads(process.stdout.readline())
        seconds = time.monotonic() - pulled
        assert (line["uplink"], line["state"]) == ("isp2", "down")
        assert seconds < 1.0
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 130
        assert process.stderr.read().strip() == "interrupted"


def test_a_follower_goes_on_with_the_next_daemon(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, quick(lab))
    argv = [sys.executable, "-m", "polywan", "events", "--follow", "--json", "--runtime-dir", str(daemon.runtime)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        began = time.monotonic()
        daemon.stop()
        # A question that waits for news does not hold up the end.
        assert time.monotonic() - began < 1.5
        daemon.start()
        found = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [(one["event"], one["id"]) for one in found] == [("found", 4), ("found", 5), ("found", 6)]
        process.terminate()


def test_the_command_says_what_was_for_how_long(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, quick(lab))
    lab.cut(1)
    wait_for(has(daemon, "isp1", "down"))
    done = polywan(daemon, "events", "--uplink", "isp1", "--since", "1h")
    first, second = done.stdout.splitlines()
    assert first[21:].startswith("isp1  found up: no outage since the daemon started")
    assert second[21:].startswith("isp1  up → down: no carrier (up for ")
    assert polywan(daemon, "events", "--uplink", "ips1").returncode == 1
    wrong = polywan(daemon, "events", "--since", "yesterday")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_file_that_another_program_holds_delays_no_failover(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, quick(lab), may_complain=True)
    wait_for(on_disk(daemon, ("isp3", "up")))
    with closing(sqlite3.connect(daemon.state / JOURNAL_FILE, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        pulled = lab.cut(1)
        line = daemon.wait_log(lambda text: "isp1 is down: no carrier" in text, 5.0)
        assert line is not None
        assert line.at - pulled < 0.5
        assert entries(daemon, "isp1")[-1].state == "down"
        database.execute("ROLLBACK")
    wait_for(on_disk(daemon, ("isp1", "down")), timeout=20.0)
