"""Whatever somebody does to our table: the next failover works, and the table comes back."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

T = "inet polywan"
QUICK = 'hold_down = "0s"\nrise = 1\ninterval = "300ms"'


class Table:
    """Our table as nft lists it, and a source of chance that draws from it."""

    def __init__(self, lab: Lab, draw: random.Random) -> None:
        self.text = lab.router.run(["nft", "-a", "list", "table", *T.split()]).stdout
        self.draw = draw

    def one(self, kind: str, beginning: str = "") -> str:
        found: list[str] = re.findall(rf"^\t{kind} ({beginning}\S*) \{{", self.text, re.MULTILINE)
        return self.draw.choice(found)


def anew(table: Table) -> list[str]:
    """Delete a set and declare it with another type, size or flags, and what refers to it with it."""
    name = table.one("set", table.draw.choice(("down_", "dead_", "ours", "own", "clamped")))
    how = table.draw.choice(("type ipv4_addr;", "type mark; size 7;", "type mark; flags interval;", "type ifname;"))
    using = {c for c in chains(table) if f"@{name}" in chains(table)[c]}
    return [*(f"flush chain {T} {c}" for c in using), f"delete set {T} {name}", f"add set {T} {name} {{ {how} }}"]


def a_map_anew(table: Table) -> list[str]:
    name = table.one("map", table.draw.choice(("slots_", "restore", "guards")))
    using = {c for c in chains(table) if f"@{name}" in chains(table)[c]}
    other = f"add map {T} {name} {{ type ipv4_addr : verdict; }}"
    return [*(f"flush chain {T} {c}" for c in using), f"delete map {T} {name}", other]


def chains(table: Table) -> dict[str, str]:
    return dict(re.findall(r"^\tchain (\S+) \{.*?\n(.*?)^\t\}", table.text, re.MULTILINE | re.DOTALL))


def chain_away(table: Table) -> list[str]:
    """Flush everything, then delete a chain."""
    gone = table.one("chain", "(?:to_|policy_|cut|fresh)")
    return (
        [f"flush chain {T} {c}" for c in chains(table)]
        + [f"flush map {T} {m}" for m in re.findall(r"^\tmap (\S+) \{", table.text, re.MULTILINE)]
        + [f"delete chain {T} {gone}"]
    )


CHANGES: dict[str, Callable[[Table], Sequence[str]]] = {
    "a chain renamed": lambda t: [f"rename chain {T} {t.one('chain', '(?:to_|cut|forged|policy_|guard_)')} other"],
    "a set declared anew": anew,
    "a map declared anew": a_map_anew,
    "a chain removed": chain_away,
    "a jump into ours": lambda t: [f"add chain {T} mine", f"add rule {T} mine jump {t.one('chain', 'to_')}"],
    "a rule added": lambda t: [f"insert rule {T} {t.one('chain')} counter accept"],
    "a chain emptied": lambda t: [f"flush chain {T} {t.one('chain')}"],
    "a set emptied": lambda t: [f"flush set {T} {t.one('set')}"],
    "a map emptied": lambda t: [f"flush map {T} {t.one('map')}"],
    "our names taken": lambda t: [
        f"delete table {T}",
        f"table {T} {{ map down_4 {{ type mark : verdict; }}; }}",
        f"add chain {T} reject_dead {{ type filter hook input priority 0; }}",
    ],
}


def change(lab: Lab, seed: int) -> str:
    """Draw and make a foreign change; return what it was, with its text."""
    draw = random.Random(seed)
    what = draw.choice(list(CHANGES))
    text = "\n".join(CHANGES[what](Table(lab, draw)))
    done = lab.router.run(["nft", "-f", "-"], text=text, check=False)
    return f"seed {seed}: {what}{' (refused)' if done.returncode else ''}: {text}"


async def answered(lab: Lab, count: int) -> int:
    found = 0
    for _ in range(count):
        attempt, connection = await connect(lab, SERVERS[Family.V4][0], patience=0.2)
        found += attempt.ok
        if connection is not None:
            connection.close()
    return found


@pytest.mark.parametrize("seeds", [range(1, 11), range(11, 21)], ids=str)
def test_a_failover_works_within_a_second_of_any_change_of_our_table(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, seeds: range
) -> None:
    text = configuration(lab.topology, (1, 1, 1)).replace('hold_down = "3s"', QUICK)
    # It is an error to be refused, though the table is replaced a moment later.
    daemon = start_daemon(lab, text, may_complain=True)

    def up() -> bool:
        return all(uplink.state == "up" for uplink in daemon.status().uplinks)

    async def story() -> None:
        for seed in seeds:
            what = change(lab, seed)
            lab.cut(1)
            await asyncio.sleep(1.0)
            assert await answered(lab, 6) == 6, what
            lab.restore(1)
            await asyncio.to_thread(wait_for, up, timeout=10.0, what=f"all up again after {what}")

    with_servers(lab, story)


def test_a_failover_works_with_more_addresses_than_there_was_room_for(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True)
    lab.router.ip([f"address add 10.77.{n // 250}.{n % 250 + 1}/32 dev lo" for n in range(4200)])

    def held() -> bool:
        return "10.77.16.200" in lab.router.run(["nft", "list", "set", *T.split(), "own"]).stdout

    wait_for(held, timeout=10.0, what="the last of 4200 addresses")
    daemon.stop()
    daemon.start()

    async def story() -> None:
        lab.cut(1)
        await asyncio.sleep(1.0)
        assert await answered(lab, 6) == 6

    with_servers(lab, story)


@pytest.mark.parametrize(
    ("setting", "foreign"),
    [
        ("ipv4/conf/wan1/rp_filter", 1),
        ("ipv4/conf/wan1/ignore_routes_with_linkdown", 0),
        ("ipv6/conf/wan1/ignore_routes_with_linkdown", 0),
        ("ipv4/ip_forward", 0),
        ("ipv6/conf/all/forwarding", 0),
    ],
)
def test_a_setting_that_somebody_else_changed_is_back_within_two_seconds(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, setting: str, foreign: int
) -> None:
    start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    ours = lab.router.read_sysctl(setting)
    lab.router.sysctl({setting: foreign})
    wait_for(lambda: lab.router.read_sysctl(setting) == ours != str(foreign), timeout=2.0, what=setting)


def test_every_setting_of_ours_that_is_put_to_what_it_was_is_back_within_two_seconds(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    originals: dict[str, str] = json.loads((daemon.state / "memory.json").read_text())["originals"]
    paths = {path: path.removeprefix("net/") for path in originals}
    ours = {path: lab.router.read_sysctl(name) for path, name in paths.items()}

    def is_back(path: str) -> bool:
        return lab.router.read_sysctl(paths[path]) == ours[path]

    lab.router.sysctl({paths[path]: value for path, value in originals.items()})
    deadline = time.monotonic() + 2.0
    for path in originals:
        wait_for(partial(is_back, path), timeout=max(0.1, deadline - time.monotonic()), what=path)
