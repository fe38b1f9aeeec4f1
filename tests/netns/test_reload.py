"""What a reload must not do: names of uplinks are words of the file, connections are on devices."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from typing import TYPE_CHECKING

from netlab import with_servers
from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections

if TYPE_CHECKING:
    from netlab import StartDaemon

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
            before = {u["interface"]: u for u in daemon.client.status()["uplinks"]}
            for names in NAMINGS:
                text = re.sub(r"isp[123]", lambda found, names=names: names[found[0]], first)  # type: ignore[misc]
                daemon.config.write_text(text)
                await asyncio.to_thread(daemon.client.reload)
                after = {u["interface"]: u for u in daemon.client.status()["uplinks"]}
                assert [u["name"] for u in after.values()] == list(names.values())
                for device, seen in after.items():
                    assert {k: seen[k] for k in KEPT} == {k: before[device][k] for k in KEPT}
                for connection in (c for each in (*opened, own) for c in each.connections):
                    assert await connection.ask("moved?", patience=1.0)

    with_servers(lab, story)
    assert sum(seen.spoofed for seen in lab.all_seen().values()) == 0
    assert "is now called" in "\n".join(line.text for line in daemon.log)
