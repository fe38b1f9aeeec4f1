"""Rules by list and by domain in a real router: contents that change are followed, and packets prove it."""

from __future__ import annotations

import asyncio
import os
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import FAMILIES, Family, IPAddress
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect
from support.dns_lab import resolving
from support.dns_server import Zone
from support.files import write
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

ELSEWHERE = 3
"""Number of the uplink that the rules lead to; everything else is led to the first."""


def steered(lab: Lab, condition: str) -> str:
    uplinks = lab.topology.uplinks
    rules = f'\n[[rules]]\n{condition}\nuplink = "{uplinks[ELSEWHERE - 1].name}"\n'
    return configuration(lab.topology, (1, 1, 1)) + rules + f'\n[[rules]]\nuplink = "{uplinks[0].name}"\n'


async def taken(lab: Lab, address: IPAddress) -> int | None:
    """Return the number of the uplink that a new connection to the address takes."""
    attempt, connection = await connect(lab, address)
    assert connection is not None, attempt.error
    connection.close()
    return attempt.uplink


def now_taken(lab: Lab, address: IPAddress) -> int | None:
    found: list[int | None] = []

    async def story() -> None:
        found.append(await taken(lab, address))

    with_servers(lab, story)
    return found[0]


def many(count: int, family: Family) -> str:
    """Return prefixes that hold none of the lab's addresses and cannot be joined."""
    if family is Family.V4:
        return "".join(f"{IPv4Address((11 << 24) + 512 * n)}/24\n" for n in range(count))
    return "".join(f"{IPv6Address((0x2A00 << 112) + (2 * n << 80))}/48\n" for n in range(count))


def warnings(daemon: DaemonProcess) -> str:
    return "\n".join(daemon.status().warnings)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_list_of_fifty_thousand_prefixes_leads_what_it_holds_and_nothing_else(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path, family: Family
) -> None:
    inside, outside = SERVERS[family][1], SERVERS[family][0]
    path = tmp_path / "list"
    path.write_text(many(25_000, Family.V4) + many(25_000, Family.V6) + f"{inside}\n")
    start_daemon(lab, steered(lab, f'list = "{path}"'))

    async def story() -> None:
        for _ in range(3):
            assert await taken(lab, inside) == ELSEWHERE
            assert await taken(lab, outside) == 1

    with_servers(lab, story)


def test_a_list_that_is_replaced_is_followed(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    first, second = SERVERS[Family.V4][:2]
    path = tmp_path / "list"
    path.write_text(f"{first}\n")
    start_daemon(lab, steered(lab, f'list = "{path}"'))
    assert (now_taken(lab, first), now_taken(lab, second)) == (ELSEWHERE, 1)
    write(path, f"{second}\n")
    wait_for(lambda: now_taken(lab, second) == ELSEWHERE, what="the new contents are in force")
    assert now_taken(lab, first) == 1


def test_a_large_list_that_is_replaced_holds_nothing_up(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    first, second = SERVERS[Family.V4][:2]
    path = tmp_path / "list"
    path.write_text(many(25_000, Family.V4) + f"{first}\n")
    daemon = start_daemon(lab, steered(lab, f'list = "{path}"'))
    write(path, many(25_000, Family.V4) + f"{second}\n")
    wait_for(lambda: now_taken(lab, second) == ELSEWHERE, 10.0, "the new contents are in force")
    assert now_taken(lab, first) == 1
    assert daemon.wait_log(lambda text: "preloaded 1 set " in text, 5.0)
    assert not any("events.lost" in line.text for line in daemon.log)
    assert lab.router.run(["nft", "-t", "list", "sets", "inet"]).stdout.count("set list_4_") == 1


def test_a_bad_line_leaves_the_old_list_in_force_and_is_named(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    first = SERVERS[Family.V4][0]
    path = tmp_path / "list"
    path.write_text(f"{first}\n")
    daemon = start_daemon(lab, steered(lab, f'list = "{path}"'))
    write(path, "198.51.100.0/24\n198.51.100.1/24\n")
    wait_for(lambda: f"{path}:2: " in warnings(daemon), what="the line is named")
    assert "host bits" in warnings(daemon)
    assert now_taken(lab, first) == ELSEWHERE


def test_a_hundred_megabytes_are_refused_at_once(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    first = SERVERS[Family.V4][0]
    path = tmp_path / "list"
    path.write_text(f"{first}\n")
    daemon = start_daemon(lab, steered(lab, f'list = "{path}"'))
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 100_000_000)
    huge.rename(path)
    wait_for(lambda: "is 100 MB; a list may have 16 MiB" in warnings(daemon), what="it is refused")
    assert now_taken(lab, first) == ELSEWHERE


def test_a_list_that_is_missing_at_the_start_counts_as_soon_as_it_comes(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    first = SERVERS[Family.V4][0]
    path = tmp_path / "folder" / "list"
    daemon = start_daemon(lab, steered(lab, f'list = "{path}"'))
    assert "this condition never matches (rule 1)" in warnings(daemon)
    assert now_taken(lab, first) == 1
    path.parent.mkdir()
    write(path, f"{first}\n")
    wait_for(lambda: now_taken(lab, first) == ELSEWHERE, what="the list is in force")
    assert str(path) not in warnings(daemon)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_domain_leads_its_addresses_in_both_families(lab: Lab, start_daemon: StartDaemon, family: Family) -> None:
    inside, outside = SERVERS[family][1], SERVERS[family][0]
    zone = Zone([str(SERVERS[f][1]) for f in FAMILIES])
    with resolving(lab, {"bank.example": zone}):
        start_daemon(lab, steered(lab, 'domains = "bank.example"'))

        async def story() -> None:
            assert await taken(lab, inside) == ELSEWHERE
            assert await taken(lab, outside) == 1

        with_servers(lab, story)


def test_a_restart_while_names_are_known_changes_nothing(lab: Lab, start_daemon: StartDaemon) -> None:
    with resolving(lab, {"bank.example": Zone([str(SERVERS[Family.V4][1])])}):
        daemon = start_daemon(lab, steered(lab, 'domains = "bank.example"'))
        daemon.stop()
        lines = len(daemon.log)
        daemon.start()
        assert [line.text for line in daemon.log[lines:] if "applied" in line.text] == []


def test_a_name_that_comes_to_exist_and_then_moves_is_followed(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    first, second = SERVERS[Family.V4][1:3]
    with resolving(lab, {}) as server:
        daemon = start_daemon(lab, steered(lab, 'domains = "bank.example"'))
        assert "bank.example does not resolve" in warnings(daemon)
        server.names["bank.example"] = Zone([str(first)], 1)
        wait_for(lambda: now_taken(lab, first) == ELSEWHERE, 15, "the first address leads")
        assert "bank.example" not in warnings(daemon)
        server.names["bank.example"] = Zone([str(second)], 1)
        wait_for(lambda: now_taken(lab, second) == ELSEWHERE, 40, "the second address leads")
        assert now_taken(lab, first) == ELSEWHERE, "connections to the old address outlive the answer"


def test_a_reload_does_not_take_a_list_out_of_force_for_a_moment(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    first = SERVERS[Family.V4][0]
    path = tmp_path / "list"
    path.write_text(f"{first}\n")
    daemon = start_daemon(lab, steered(lab, f'list = "{path}"'))

    async def story() -> None:
        for weight in (2, 3, 4):
            text = steered(lab, f'list = "{path}"').replace("weight = 1", f"weight = {weight}", 1)
            daemon.config.write_text(text)
            reloading = asyncio.create_task(asyncio.to_thread(daemon.reload))
            while not reloading.done():
                assert await taken(lab, first) == ELSEWHERE
            await reloading

    with_servers(lab, story)
