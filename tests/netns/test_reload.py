"""What a reload must not do: names of uplinks are words of the file, connections are on devices."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections
from support.netns import with_servers

if TYPE_CHECKING:
    from polywan.lab.daemon import DaemonProcess
    from support.netns import StartDaemon, WaitFor

NAMINGS = (
    {"isp1": "isp2", "isp2": "isp3", "isp3": "isp1"},
    {"isp1": "fibre", "isp2": "isp1", "isp3": "isp3"},
)

KEPT = ("mark", "table", "state", "since")


def test_connections_stay_when_names_are_exchanged_or_new(lab: Lab, start_daemon: StartDaemon) -> None:
    first = configuration(lab.topology, (1, 1, 1))
    daemon = start_daemon(lab, first)

    async def story() -> None:
        opened = [await open_connections(lab, 9, SERVERS[family][0]) for family in FAMILIES]
        own = await open_connections(lab, 6, SERVERS[Family.V4][0], namespace=lab.router)
        with closing(opened[0]), closing(opened[1]), closing(own):
            before = {u.interface: u for u in daemon.status().uplinks}
            for names in NAMINGS:
                text = re.sub(r"isp[123]", lambda found, names=names: names[found[0]], first)  # type: ignore[misc]
                daemon.config.write_text(text)
                await asyncio.to_thread(daemon.reload)
                after = {u.interface: u for u in daemon.status().uplinks}
                assert [u.name for u in after.values()] == list(names.values())
                for device, seen in after.items():
                    assert {k: getattr(seen, k) for k in KEPT} == {k: getattr(before[device], k) for k in KEPT}
                for connection in (c for each in (*opened, own) for c in each.connections):
                    assert await connection.ask("moved?", patience=1.0)

    with_servers(lab, story)
    assert sum(seen.spoofed for seen in lab.all_seen().values()) == 0
    assert "is now called" in "\n".join(line.text for line in daemon.log)


def plan(lab: Lab, daemon: DaemonProcess, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "polywan", "plan", "--config", str(daemon.config), "--state-dir", str(daemon.state)]
    return lab.router.run([*argv, *more], check=False)


@pytest.mark.parametrize("named", [True, False])
def test_plan_finds_no_drift_in_a_slow_start_and_real_drift_beside_it(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, named: bool
) -> None:
    text = configuration(lab.topology, (1, 1, 1)).replace('slow_start = "0s"', 'slow_start = "5m"\nrise = 1')
    daemon = start_daemon(lab, text.replace('hold_down = "3s"', 'hold_down = "0s"'))
    lab.cut(1)
    wait_for(lambda: daemon.uplink(1).state == "down")
    lab.restore(1)
    wait_for(lambda: daemon.uplink(1).slow_start is not None, 10.0)
    more = ("--runtime-dir", str(daemon.runtime)) if named else ()
    done = plan(lab, daemon, *more)
    assert (done.returncode, done.stdout) == (0, "nothing to change\n"), done.stderr
    daemon.config.write_text(daemon.config.read_text().replace("weight = 1", "weight = 7", 1))
    done = plan(lab, daemon, *more)
    assert done.returncode == 9, done.stderr
    assert "slots_4_default" in done.stdout
