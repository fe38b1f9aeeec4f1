"""`polywan try` under the systemd of each release: whatever dies meanwhile, the old configuration comes back."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from polywan.core.net import Family
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.connections import answers
from support.machine.booted import until
from support.machine.box import CONFIG, SERVICE, Box
from support.netns import with_servers
from support.runbook import MACHINE, runbook

NEW = "/root/new.toml"
RECORD = f"{CONFIG}.trial"
TERMINAL = "terminal.service"
NOT_PERMITTED, ROLLED_BACK = 5, 8
OLD_SHARES, NEW_SHARES = {1: 4, 2: 4}, {1: 6, 2: 2}


class Trying:
    """A box on which a user tries another weight."""

    def __init__(self, box: Box) -> None:
        self.box, self.machine = box, box.machine
        self.old, self.new = box.config, configuration(box.lab.topology, (3, 1))
        box.disk.write(NEW, self.new)
        self._clients: list[subprocess.Popen[str]] = []

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a trial of ten seconds, and return its client once it is in force."""
        return self.begun("polywan", "try", *(words or (NEW, "--timeout", "10")))

    def begin_in_terminal(self, *words: str) -> None:
        """The same from a session of its own, as a login is."""
        in_session = ("systemd-run", "--quiet", "--collect", f"--unit={TERMINAL}")
        self.begun(*in_session, "polywan", "try", *(words or (NEW, "--timeout", "10")))

    def begun(self, *argv: str) -> subprocess.Popen[str]:
        before, client = self.record().get("id"), self.machine.start(*argv)
        self._clients.append(client)

        def in_force() -> bool:
            assert client.poll() in (None, 0), client.communicate()
            record = self.record()
            return record.get("id") != before and bool(record.get("began"))

        until(in_force, what="the trial is in force")
        return client

    def record(self) -> dict[str, Any]:
        """What is on disk about the trial; empty without one."""
        try:
            found: dict[str, Any] = json.loads(self.box.disk.read(RECORD))
        except FileNotFoundError:
            return {}
        return found

    @property
    def supervisor(self) -> str:
        """The unit that watches over the trial."""
        return f"polywan-trial-{self.record()['id']}.service"

    def ended(self, client: subprocess.Popen[str], timeout: float = 60.0) -> tuple[int, str]:
        """Wait for a client's end, and return its exit code and what it printed."""
        out, err = client.communicate(timeout=timeout)
        return client.returncode, f"{err}{out}"

    def is_old(self) -> None:
        """The old configuration is in its place and in force, and nothing is left of the trial."""
        assert self.box.disk.read(CONFIG) == self.old
        until(lambda: not self.record(), what="the record is removed")
        assert self.weights() == [1, 1]
        assert self.box.polywan("plan").stdout == "nothing to change\n"

    def weights(self) -> list[int]:
        """What the daemon has in force."""
        return [uplink["weight"] for uplink in self.box.status()["uplinks"]]

    def close(self) -> None:
        """Have the old configuration in force for the next test."""
        for client in self._clients:
            client.kill()
            client.communicate()
        if self.record():
            self.box.polywan("rollback", check=False)
        self.box.disk.write(CONFIG, self.old)
        self.box.machine.run("systemctl", "start", SERVICE)
        self.box.machine.run("systemctl", "reload", SERVICE)
        self.box.balanced()


@pytest.fixture
def trying(box: Box) -> Iterator[Trying]:
    made = Trying(box)
    yield made
    made.close()


def test_a_trial_outlives_its_terminal_and_the_old_configuration_comes_back_in_time(trying: Trying) -> None:
    async def shared(count: int = 8) -> dict[int, int]:
        opened = await open_connections(trying.box.lab, count, SERVERS[Family.V4][0])
        held.append(opened)
        return shares(attempt.uplink for attempt in opened.attempts)

    held: list[Any] = []

    async def story() -> None:
        assert await shared() == OLD_SHARES
        await asyncio.to_thread(trying.begin_in_terminal)
        supervisor = trying.supervisor
        assert await shared() == NEW_SHARES
        await asyncio.to_thread(trying.machine.run, "systemctl", "stop", TERMINAL)
        assert len(trying.machine.processes_of(supervisor)) == 1
        await asyncio.to_thread(until, lambda: not trying.record(), 40.0, "the trial ends")
        assert await shared() == OLD_SHARES
        for opened in held:
            assert await answers(opened, (1, 2)) == 8
            opened.close()

    with_servers(trying.box.lab, story)
    trying.is_old()
    assert "trial.rolled_back: it was not confirmed within 10 s" in trying.machine.log()


def test_without_confirmation_the_exit_code_says_that_the_old_one_is_in_force(trying: Trying) -> None:
    client = trying.begin()
    unit = trying.supervisor
    assert trying.machine.show(unit, "ActiveState") == "active"
    code, said = trying.ended(client)
    assert code == ROLLED_BACK, said
    assert said.endswith("rolled back: it was not confirmed within 10 s\nthe old configuration is in force again\n"), (
        said
    )
    until(lambda: trying.machine.show(unit, "LoadState") == "not-found", what=f"{unit} is collected")
    trying.is_old()


def test_what_is_confirmed_stays_also_after_a_restart(trying: Trying) -> None:
    client = trying.begin()
    trying.box.polywan("confirm", "--here")
    code, said = trying.ended(client)
    assert code == 0, said
    assert trying.box.disk.read(CONFIG) == trying.new
    trying.machine.run("systemctl", "restart", SERVICE)
    assert trying.weights() == [3, 1]


def test_a_daemon_that_is_killed_is_started_with_the_old_configuration(trying: Trying) -> None:
    client, before = trying.begin(), trying.box.pid
    trying.box.signal("KILL")
    code, said = trying.ended(client)
    assert code == ROLLED_BACK, said
    assert "rolled back: the daemon " in said
    trying.box.restarted(before)
    trying.is_old()


def test_a_daemon_that_is_stopped_stays_stopped(trying: Trying) -> None:
    client = trying.begin()
    unit = trying.supervisor
    trying.machine.run("systemctl", "stop", SERVICE)
    code, said = trying.ended(client)
    assert code == ROLLED_BACK, said
    assert "the daemon was stopped; it starts with the old configuration" in said
    assert "in force again" not in said
    until(lambda: trying.machine.show(unit, "LoadState") == "not-found", what="the supervisor ends")
    assert trying.machine.show(SERVICE, "ActiveState") == "inactive"
    assert "trial.dropped: the daemon was stopped" in trying.machine.log()
    trying.machine.run("systemctl", "start", SERVICE)
    trying.is_old()


def test_a_daemon_that_hangs_at_the_end_is_replaced(trying: Trying) -> None:
    client, before = trying.begin(), trying.box.pid
    trying.box.signal("STOP")
    code, said = trying.ended(client, 90.0)
    assert code == ROLLED_BACK, said
    assert trying.box.restarted(before) != before
    trying.is_old()


def test_a_restart_ends_the_trial(trying: Trying) -> None:
    client = trying.begin()
    trying.machine.run("systemctl", "restart", SERVICE)
    code, said = trying.ended(client)
    assert code == ROLLED_BACK, said
    trying.is_old()


def test_a_reload_is_refused_and_the_trial_goes_on(trying: Trying) -> None:
    client = trying.begin()
    done = trying.machine.run("systemctl", "reload", SERVICE, check=False)
    assert done.returncode == 1
    assert "on trial until" in trying.machine.log()
    assert trying.machine.show(SERVICE, "ActiveState") == "active"
    assert trying.weights() == [3, 1]
    trying.box.polywan("confirm", "--here")
    assert trying.ended(client)[0] == 0


@pytest.mark.parametrize("in_order", [True, False], ids=["a shutdown", "a power failure"])
def test_the_machine_starts_with_the_old_configuration(trying: Trying, in_order: bool) -> None:
    trying.box.disk.write(CONFIG, trying.new)
    trying.begin_in_terminal("--timeout", "300")
    trying.box.reboot(in_order=in_order)
    trying.machine = trying.box.machine
    trying.box.balanced()
    assert trying.box.disk.read(CONFIG) == trying.old
    assert trying.weights() == [1, 1]
    if not in_order:
        assert "trial.left: " in trying.machine.log()
    client = trying.begin()
    # What was edited before is not lost.
    assert trying.box.disk.read(f"{CONFIG}.rejected") == trying.new
    trying.box.polywan("rollback")
    _, said = trying.ended(client)
    assert in_order or "was not confirmed and is not in force" in said
    trying.is_old()


@pytest.fixture(scope="module")
def users(box: Box) -> Box:
    """Two ordinary users; alice is in the service's group."""
    box.machine.run("useradd", "alice", "--groups=polywan")
    box.machine.run("useradd", "bob")
    box.disk.write("/srv/new.toml", configuration(box.lab.topology, (3, 1)))
    return box


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_ordinary_users_may_not_try(users: Box, trying: Trying, user: str) -> None:
    for words in (("try", "/srv/new.toml"), ("try",)):
        done = users.polywan(*words, user=user, check=False)
        assert (done.returncode, done.stdout) == (NOT_PERMITTED, ""), done.stderr
        assert "use sudo" in done.stderr or "`polywan`" in done.stderr, done.stderr
    trying.is_old()


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_ordinary_users_may_not_confirm_or_roll_back(users: Box, trying: Trying, user: str) -> None:
    client = trying.begin()
    for verb in ("confirm", "rollback"):
        done = users.polywan(verb, user=user, check=False)
        assert (done.returncode, done.stdout) == (NOT_PERMITTED, ""), done.stderr
        assert "sudo" in done.stderr, done.stderr
    assert trying.weights() == [3, 1]
    trying.box.polywan("rollback")
    assert trying.ended(client)[0] == ROLLED_BACK
    trying.is_old()


@pytest.fixture
def read_only(trying: Trying) -> Iterator[Trying]:
    """The same with an /etc that nothing can be written to."""
    trying.machine.run("sh", "-ec", "mount --bind /etc /etc; mount -o remount,bind,ro /etc")
    yield trying
    trying.machine.run("umount", "/etc", check=False)


def test_where_nothing_can_be_written_nothing_is_changed(read_only: Trying) -> None:
    done = read_only.box.polywan("try", NEW, check=False)
    assert done.returncode == 1
    assert "/etc/polywan/.polywan.toml.lock: read-only file system" in done.stderr
    read_only.is_old()


def test_a_trial_needs_no_message_bus(trying: Trying) -> None:
    trying.machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
    try:
        client = trying.begin()
        assert trying.supervisor
        trying.box.polywan("confirm", "--here")
        assert trying.ended(client)[0] == 0
    finally:
        trying.machine.run("systemctl", "start", "dbus.socket")


def test_the_commands_of_the_runbook_for_a_machine_succeed(box: Box) -> None:
    blocks = [block for section in runbook() for block in section.of(MACHINE)]
    assert blocks
    for block in blocks:
        box.machine.run("sh", "-euc", block)
        box.balanced()


def test_nothing_that_was_logged_is_a_traceback(box: Box) -> None:
    assert "Traceback" not in box.machine.run("journalctl", "--output=cat", "--no-pager").stdout
