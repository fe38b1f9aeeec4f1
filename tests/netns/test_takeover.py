"""An upgraded daemon takes over the table of an older one, whose chains and sets had other names."""

from __future__ import annotations

import asyncio
import re
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon

OLD = {
    "classify": "fresh",
    "spoofed": "forged",
    "classify_local": "local",
    "reject_dead": "cut",
    "steering_rules": "steer",
    "kill_switch": "only",
    "kill_switch_1": "only_1",
    "outside_ifs": "outer",
}
RULE = """
[[rules]]
to = "198.18.0.0/15"
only = ["isp1", "isp2"]
"""


def listed(lab: Lab) -> str:
    return lab.router.run(["nft", "list", "table", "inet", "polywan"]).stdout


def names(text: str) -> set[str]:
    return set(re.findall(r"^\t(?:chain|set|map) (\S+) \{", text, re.MULTILINE))


def as_an_older_daemon_left_it(text: str) -> str:
    """The same table under its old names; comments differ too, since they carry a digest of their rule."""
    for new, old in OLD.items():
        text = re.sub(rf"\b{new}\b", old, text)
    return re.sub(r'comment "[^"]*"', 'comment "older"', text)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_with_the_old_names_is_taken_over_while_traffic_flows(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + RULE)
    complete = names(listed(lab))

    async def story() -> None:
        _, connection = await connect(lab, SERVERS[family][1])
        assert connection is not None
        with closing(connection):
            await connection.ask("before")
            daemon.kill()
            older = as_an_older_daemon_left_it(listed(lab))
            lab.router.nft(f"delete table inet polywan\n{older}")
            assert {"fresh", "steer", "only", "outer"} <= names(listed(lab))
            await connection.ask("while the older table stands")
            await asyncio.to_thread(daemon.start)
            assert names(listed(lab)) == complete
            await connection.ask("afterwards")
        attempt, connection = await connect(lab, SERVERS[family][1])
        assert attempt.ok
        assert connection is not None
        connection.close()

    with_servers(lab, story)
