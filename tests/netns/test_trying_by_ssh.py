"""A configuration on trial, by an administrator who comes in over an uplink by ssh, and may cut himself off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.lab.daemon import DaemonProcess, Spawn, executed
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.trial.place import Place
from support.ssh import SshServer, ssh_server

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

pytestmark = [pytest.mark.needs("root", "sshd")]

ADDRESSES = {4: {1: "100.64.1.2", 2: "100.64.2.2"}, 6: {1: "2001:db8:64:1::2", 2: "2001:db8:64:2::2"}}


@pytest.fixture
def spawn() -> Spawn:
    """The daemon's own words have to start it again."""
    return executed


class Remote:
    """A router with a daemon and an ssh server, and a client behind its providers."""

    def __init__(self, lab: Lab, daemon: DaemonProcess, server: SshServer, directory: Path) -> None:
        self.lab, self.daemon, self.server, self.place = lab, daemon, server, Place(daemon.config)
        self.old = daemon.config.read_text()
        self.new = directory / "new.toml"
        self._started: list[subprocess.Popen[str]] = []

    def argv(self, verb: str, *words: str) -> list[str]:
        here = ["--runtime-dir", str(self.daemon.runtime)] if verb != "confirm" else []
        here += ["--config", str(self.daemon.config)] if verb != "reload" else []
        return [sys.executable, "-m", "polywan", verb, *words, *here]

    def ssh(self, *words: str, uplink: int = 1, family: int = 4) -> subprocess.Popen[str]:
        """Start `polywan` on the router from the server's side, over an uplink."""
        made = self.server.client(self.lab.server, ADDRESSES[family][uplink], self.argv(*words))
        self._started.append(made)
        return made

    def close(self) -> None:
        if self.place.record.exists():
            self.lab.router.run(self.argv("rollback"), check=False)
        for each in self._started:
            each.kill()
            each.communicate()


@pytest.fixture
def remote(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> Iterator[Remote]:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True)
    with ssh_server(lab.router, tmp_path) as server:
        made = Remote(lab, daemon, server, tmp_path)
        yield made
        made.close()


def test_ssh_confirms_from_a_new_session_and_not_from_an_old_one(remote: Remote, wait_for: WaitFor) -> None:
    remote.new.write_text(remote.old.replace("weight = 1\n", "weight = 7\n", 1))
    waiting = f"while ! test -e {remote.new}.go; do sleep 0.1; done; true;"
    old = remote.server.client(
        remote.lab.server,
        ADDRESSES[4][1],
        [waiting, *remote.argv("confirm")],
    )
    wait_for(lambda: remote.lab.router.run(["pgrep", "-f", f"{remote.new}.go"], check=False).stdout, 10)
    client = remote.ssh("try", str(remote.new), "--timeout", "60")
    wait_for(lambda: (found := remote.place.pending()) is not None and found.began > 0, 20)
    Path(f"{remote.new}.go").touch()
    _, err = old.communicate(timeout=20)
    assert old.returncode == 5, err
    assert "this ssh session is older than the change" in err
    newer = remote.ssh("confirm")
    _, err = newer.communicate(timeout=20)
    assert newer.returncode == 0, err
    _, err = client.communicate(timeout=20)
    assert client.returncode == 0, err
    assert "your connection from 203.0.113.10 by isp1 still has answers" in err
    assert remote.daemon.config.read_text() == remote.new.read_text()


def test_a_client_that_cuts_itself_off_has_its_connection_back(remote: Remote, wait_for: WaitFor) -> None:
    first = remote.old.index("[uplinks.isp1]")
    second = remote.old.index("[uplinks.isp2]")
    remote.new.write_text(remote.old[:first] + remote.old[second:])
    client = remote.ssh("try", str(remote.new), "--timeout", "60")
    wait_for(lambda: (found := remote.place.pending()) is not None and found.began > 0, 20)
    wait_for(lambda: not remote.place.record.exists(), 40, "long before the time-out")
    assert [one.name for one in remote.daemon.status().uplinks] == ["isp1", "isp2", "isp3"]
    assert remote.daemon.config.read_text() == remote.old
    client.communicate(timeout=20)
    assert client.returncode != 0
    last = remote.ssh("rollback")
    _, err = last.communicate(timeout=20)
    assert "no configuration is on trial" in err


def test_a_connection_that_falls_silent_brings_the_old_one_back(remote: Remote, wait_for: WaitFor) -> None:
    # A router that there is not: nothing refuses a packet, and nothing comes back.
    remote.new.write_text(remote.old.replace('"wan1"\n', '"wan1"\ngateway = "100.64.1.99"\n'))
    client = remote.ssh("try", str(remote.new), "--timeout", "90")
    wait_for(lambda: (found := remote.place.pending()) is not None and found.began > 0, 20)
    wait_for(lambda: not remote.place.record.exists(), 60, "long before the time-out")
    _, err = client.communicate(timeout=30)
    assert client.returncode == 8, err
    assert "your connection from 203.0.113.10 by isp1 has had no answer since the change" in err


@pytest.mark.parametrize("family", [4, 6])
def test_auto_confirm_needs_no_second_session(remote: Remote, family: int) -> None:
    remote.new.write_text(remote.old.replace("weight = 1\n", "weight = 7\n", 1))
    client = remote.ssh("try", str(remote.new), "--auto-confirm", uplink=2, family=family)
    _, err = client.communicate(timeout=40)
    assert (client.returncode, remote.place.record.exists()) == (0, False), err
    assert "by isp2 still has answers" in err
    assert remote.daemon.config.read_text() == remote.new.read_text()


def test_a_reload_that_would_cut_its_own_session_is_refused_without_force(remote: Remote) -> None:
    for text, why in (
        (remote.old.replace('"wan1"\n', '"wan1"\nenabled = false\n'), "isp1, by which it came in, would be disabled"),
        (remote.old.replace('"wan1"', '"wan9"'), "would be wan9 instead of wan1"),
    ):
        remote.daemon.config.write_text(text)
        asking = remote.ssh("reload")
        _, err = asking.communicate(timeout=20)
        assert asking.returncode == 1
        assert "your session from 203.0.113.10 would be cut" in err
        assert why in err
        assert "polywan try" in err
        elsewhere = remote.ssh("reload", uplink=2)
        _, err = elsewhere.communicate(timeout=20)
        assert elsewhere.returncode == 0, err
        remote.daemon.config.write_text(remote.old)
        back = remote.ssh("reload", "--force", uplink=2)
        assert back.wait(20) == 0
