"""A configuration on trial: confirmed it stays, and otherwise the old one comes back, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.api.trials import TrialState
from polywan.core.trial.record import Record
from polywan.lab.daemon import DaemonProcess, Spawn, executed
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.trial import processes
from polywan.trial.place import Place

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor


@pytest.fixture
def spawn() -> Spawn:
    """The daemon's own words have to start it again."""
    return executed


class Trying:
    """A daemon with three uplinks, and `polywan try` beside it."""

    def __init__(self, lab: Lab, daemon: DaemonProcess, directory: Path) -> None:
        self.lab, self.daemon, self.place = lab, daemon, Place(daemon.config)
        self.old = daemon.config.read_text()
        self.new = directory / "new.toml"
        self.new.write_text(self.old.replace("weight = 1\n", "weight = 7\n", 1))
        self.first = processes.identity(daemon.process.pid if daemon.process else 0)
        self._clients: list[subprocess.Popen[str]] = []

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = self.argv("try", *words)
        with self.lab.router.entered():
            made = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        self._clients.append(made)
        return made

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.lab.router.run(self.argv(*words), check=False)

    def argv(self, verb: str, *words: str) -> list[str]:
        here = ["--runtime-dir", str(self.daemon.runtime)] if verb != "confirm" else []
        here += ["--config", str(self.daemon.config)] if verb in {"try", "confirm", "rollback"} else []
        return [sys.executable, "-m", "polywan", verb, *words, *here]

    def state(self) -> TrialState:
        return self.daemon.client.ask(calls.TRIAL, Nothing())

    def weights(self) -> list[int]:
        return [one.weight for one in self.daemon.status().uplinks]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a trial, and return its client once it is in force."""
        client = self.start(*words)
        until = time.monotonic() + 20
        while not self._in_force():
            assert client.poll() is None, client.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        return client

    def _in_force(self) -> bool:
        pending, record = self.state().pending, self.place.pending()
        return pending is not None and record is not None and record.id == pending.id and record.began > 0

    def record(self) -> Record:
        found = self.place.pending()
        assert found is not None
        return found

    def close(self) -> None:
        if self.place.record.exists():
            self.run("rollback")
        for client in self._clients:
            if client.poll() is None:
                client.kill()
            client.communicate()
        with suppress(OSError):
            # One that a supervisor has started is no child of anybody here.
            found = processes.daemon_at(self.daemon.runtime)
            if found is not None and found.process != self.first:
                os.kill(found.process.pid, signal.SIGTERM)


@pytest.fixture
def trying(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> Iterator[Trying]:
    made = Trying(lab, start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True), tmp_path)
    yield made
    made.close()


def test_what_is_confirmed_is_in_its_place_and_in_force(trying: Trying) -> None:
    client = trying.begin(str(trying.new))
    assert trying.weights() == [7, 1, 1]
    assert trying.daemon.config.read_text() == trying.old
    assert any("on trial until" in note for note in trying.daemon.status().warnings)
    done = trying.run("confirm", "--here")
    assert (done.returncode, done.stderr) == (0, "")
    out, err = client.communicate(timeout=20)
    assert client.returncode == 0, err
    assert out.startswith("confirmed by ")
    assert trying.daemon.config.read_text() == trying.new.read_text()
    assert trying.weights() == [7, 1, 1]
    assert not trying.place.record.exists()
    assert [one.how for one in trying.daemon.client.ask(calls.HISTORY, Nothing()).entries] == ["trial", "start"]


def test_without_confirmation_the_old_one_comes_back(trying: Trying) -> None:
    client = trying.begin(str(trying.new), "--timeout", "10", "--json")
    out, err = client.communicate(timeout=40)
    assert client.returncode == 8, err
    assert json.loads(out)["reason"] == "it was not confirmed within 10 s"
    assert_old(trying)


def test_the_old_one_comes_back_at_once_when_an_uplink_that_was_up_is_not(trying: Trying) -> None:
    trying.new.write_text(trying.old.replace("wan2", "wan9"))
    client = trying.start(str(trying.new))
    out, err = client.communicate(timeout=60)
    assert client.returncode == 8, err
    assert "isp2 was up and is missing" in out
    assert_old(trying)


def test_rollback_ends_the_trial(trying: Trying) -> None:
    client = trying.begin(str(trying.new))
    done = trying.run("rollback")
    assert (done.returncode, done.stderr) == (0, "")
    out, _ = client.communicate(timeout=20)
    assert client.returncode == 8
    assert "ended by" in out
    assert_old(trying)


def test_a_second_trial_and_a_reload_are_refused_meanwhile(trying: Trying) -> None:
    trying.begin(str(trying.new))
    for words in (["try", str(trying.new)], ["reload"], ["rollback", "1", "--yes"]):
        done = trying.run(*words)
        assert done.returncode == 1
        assert re.search("on trial|there is no configuration 1", done.stderr), done.stderr


def test_the_old_one_comes_back_when_the_daemon_is_killed(trying: Trying, wait_for: WaitFor) -> None:
    client = trying.begin(str(trying.new))
    trying.daemon.kill()
    out, err = client.communicate(timeout=60)
    assert client.returncode == 8, err
    assert "the daemon died" in out
    assert_old(trying)


def test_the_old_one_comes_back_when_the_daemon_hangs(trying: Trying) -> None:
    client = trying.begin(str(trying.new), "--timeout", "10")
    os.kill(trying.record().daemon.process.pid, signal.SIGSTOP)
    _, err = client.communicate(timeout=90)
    assert client.returncode == 8, err
    assert_old(trying)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
def test_the_old_one_comes_back_when_the_terminal_is_gone(
    trying: Trying, wait_for: WaitFor, number: signal.Signals
) -> None:
    client = trying.begin(str(trying.new), "--timeout", "10")
    client.send_signal(number)
    wait_for(lambda: not trying.place.record.exists(), 30)
    assert_old(trying)


def test_the_old_one_comes_back_when_client_and_supervisor_are_killed(trying: Trying, wait_for: WaitFor) -> None:
    client = trying.begin(str(trying.new), "--timeout", "10")
    watching = trying.record().supervisor
    assert watching is not None
    client.kill()
    os.kill(watching.pid, signal.SIGKILL)
    wait_for(lambda: trying.state().pending is None, 40)
    assert trying.weights() == [1, 1, 1]
    # What is left on disk is told by the next one that tries.
    again = trying.begin(str(trying.new))
    assert trying.run("confirm", "--here").returncode == 0
    _, err = again.communicate(timeout=20)
    assert "was not confirmed and is not in force" in err


def test_a_killed_supervisor_is_started_again(trying: Trying, wait_for: WaitFor) -> None:
    trying.begin(str(trying.new))
    watching = trying.record().supervisor
    assert watching is not None
    os.kill(watching.pid, signal.SIGKILL)
    wait_for(lambda: trying.record().supervisor not in (None, watching), 20)


def test_what_was_edited_in_its_place_is_tried_and_set_aside(trying: Trying) -> None:
    # What is not printable, as a no-break space, has to come back, too.
    trying.old = "# caf\u00e9:\u00a0\u200b\n" + trying.old
    trying.daemon.config.write_text(trying.old)
    assert trying.run("reload").returncode == 0
    trying.daemon.config.write_text(trying.new.read_text())
    client = trying.begin("--timeout", "10")
    assert trying.weights() == [7, 1, 1]
    assert trying.daemon.config.read_text() == trying.old
    _, err = client.communicate(timeout=40)
    assert client.returncode == 8, err
    assert_old(trying)
    assert trying.daemon.config.with_name("polywan.toml.rejected").read_text() == trying.new.read_text()


def test_ctrl_c_rolls_back(trying: Trying) -> None:
    client = trying.begin(str(trying.new))
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=30)
    assert client.returncode == 8, err
    assert "interrupted" in out
    assert_old(trying)


def test_a_daemon_that_is_stopped_on_purpose_is_not_started_again(trying: Trying, wait_for: WaitFor) -> None:
    client = trying.begin(str(trying.new))
    trying.daemon.stop()
    out, err = client.communicate(timeout=30)
    assert client.returncode == 8, err
    assert out.startswith("ended: the daemon was stopped; it starts with the old configuration")
    assert not trying.place.record.exists()
    assert trying.daemon.config.read_text() == trying.old
    trying.daemon.start()
    assert_old(trying)


def test_a_bad_file_changes_nothing(trying: Trying) -> None:
    trying.new.write_text("[uplinks.isp1]\ninterfaces = 'wan1'\n")
    done = trying.run("try", str(trying.new))
    assert done.returncode == 3
    assert f"{trying.new}:2: uplinks.isp1.interfaces" in done.stderr
    assert_old(trying)


def test_rollback_goes_back_to_what_was_in_force(trying: Trying) -> None:
    trying.daemon.config.write_text(trying.new.read_text())
    assert trying.run("reload").returncode == 0
    listed = trying.run("history").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["0", "1"]
    assert "weight changed for isp1" in listed[0]
    done = trying.run("rollback", "1", "--yes")
    assert done.returncode == 0, done.stderr
    assert "+weight = 1" in done.stderr
    assert_old(trying)
    assert trying.daemon.client.ask(calls.HISTORY, Nothing()).entries[0].how == "rollback"


@pytest.mark.parametrize("text", ["[half", "[uplinks.isp1]\ninterface = 'wan1'\n"], ids=["bad", "good"])
def test_what_is_edited_meanwhile_neither_stops_a_rollback_nor_comes_into_force(trying: Trying, text: str) -> None:
    client = trying.begin(str(trying.new), "--timeout", "10")
    trying.daemon.config.write_text(text)
    refused = trying.run("confirm", "--here")
    assert refused.returncode == 1
    assert str(trying.daemon.config) in refused.stderr
    _, err = client.communicate(timeout=40)
    assert client.returncode == 8, err
    assert trying.weights() == [1, 1, 1]
    assert trying.daemon.config.read_text() == text
    assert not trying.place.record.exists()


def test_another_file_that_is_edited_meanwhile_is_named_and_nothing_is_confirmed(trying: Trying) -> None:
    client = trying.begin(str(trying.new), "--timeout", "30")
    other = trying.place.path("conf.d/a.toml")
    other.parent.mkdir()
    other.write_text("[uplinks.isp2]\nweight = 9\n")
    refused = trying.run("confirm", "--here")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"changed since the trial began: {other}; nothing was confirmed" in refused.stderr
    assert trying.daemon.config.read_text() == trying.old
    other.unlink()
    assert trying.run("confirm", "--here").returncode == 0
    assert client.wait(20) == 0


@pytest.mark.parametrize("delay", [0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
def test_ctrl_c_at_any_moment_leaves_the_old_one(trying: Trying, wait_for: WaitFor, delay: float) -> None:
    client = trying.start(str(trying.new), "--timeout", "60", "--json")
    time.sleep(delay)  # any moment will do
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=40)
    assert client.returncode in {8, 130}, err
    assert client.returncode == 130 or json.loads(out)["reason"].startswith("interrupted by ")
    assert client.returncode == 8 or "on trial" not in err
    assert_old(trying)


def assert_old(trying: Trying) -> None:
    """What was in force is, and nothing is left of the trial."""
    assert trying.weights() == [1, 1, 1]
    assert trying.daemon.config.read_text() == trying.old
    assert not trying.place.record.exists()
    assert trying.run("plan", "--config", str(trying.daemon.config)).stdout == "nothing to change\n"


def test_the_exit_code_is_8_also_where_nobody_reads(trying: Trying) -> None:
    client = trying.begin(str(trying.new), "--timeout", "10")
    assert client.stdout is not None
    client.stdout.close()
    assert client.wait(40) == 8
    client.stdout = None
    assert_old(trying)
