"""What users were promised of choosing an uplink, each promise from end to end with the real daemon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.requests import Words
from polywan.api.why import Explanation
from polywan.core.net import FAMILIES, Family, IPAddress
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT, Servers
from polywan.lab.topology import LAN_CLIENT, SERVERS
from polywan.lab.traffic import Connection, connect, open_connections, shares
from support.dns_lab import resolving
from support.dns_server import Zone
from support.lan_clients import as_clients, many_clients, uplinks_of
from support.lan_traffic import DSCP_EF, OTHER_CLIENT, Asker, rule
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

FORWARDED = 8080
OTHER_PORT = 7002


def why(daemon: DaemonProcess, source: str, target: IPAddress, port: int = ECHO_PORT, **words: str) -> Explanation:
    at = f"[{target}]:{port}" if target.version == 6 else f"{target}:{port}"
    answer = daemon.client.ask(calls.WHY, Words(words={"from": source, "to": at, **words}))
    print("\n".join(answer.text))
    return answer


def shares_of_why(answer: Explanation) -> dict[str, float]:
    return {uplink.name: uplink.share for uplink in answer.uplinks}


def test_a_port_forward_and_a_service_of_the_box_answer_one_client_on_every_uplink_at_once(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    lab.forward_port(FORWARDED, ECHO_PORT)

    async def opened(address: IPAddress, port: int, until: ExitStack) -> Connection:
        attempt, connection = await connect(lab, address, port=port, namespace=lab.server)
        assert connection is not None, (address, port, attempt.error)
        until.enter_context(closing(connection))
        return connection

    async def story() -> None:
        inside, own = Servers(), Servers()
        for family in FAMILIES:
            await inside.listen(lab.client, family, ECHO_PORT)
            await own.listen(lab.router, family, ECHO_PORT)
        places = [
            (uplink.addresses[family].own.ip, port)
            for family in FAMILIES
            for uplink in lab.topology.uplinks
            for port in (FORWARDED, ECHO_PORT)
        ]
        with ExitStack() as until:
            found = await asyncio.gather(*(opened(address, port, until) for address, port in places))
            for turn in range(3):
                answers = await asyncio.gather(*(c.ask(f"{turn} {number}") for number, c in enumerate(found)))
                assert answers == [f"{turn} {number}" for number in range(len(places))]
        await inside.close()
        await own.close()

    with_servers(lab, story)
    assert {number: seen.spoofed for number, seen in lab.all_seen().items()} == {1: 0, 2: 0, 3: 0}


@pytest.mark.parametrize("family", FAMILIES)
def test_twins_share_the_traffic_and_why_tells_the_same(
    lab_of: BuildLab, start_daemon: StartDaemon, family: Family
) -> None:
    lab = lab_of(2, twins=True)
    daemon = start_daemon(lab, configuration(lab.topology, (3, 1)))

    async def story() -> None:
        opened = await open_connections(lab, 40, SERVERS[family][0])
        answers = await asyncio.gather(*(c.ask(str(number)) for number, c in enumerate(opened.connections)))
        assert answers == [str(number) for number in range(40)]
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {1: 30, 2: 10}
        for uplink in lab.topology.uplinks:
            attempt, connection = await connect(lab, SERVERS[family][0], namespace=lab.router, device=uplink.interface)
            assert connection is not None, attempt.error
            connection.close()
            assert attempt.uplink == uplink.number

    with_servers(lab, story)
    answer = why(daemon, str(LAN_CLIENT[family].ip), SERVERS[family][0])
    assert shares_of_why(answer) == {"isp1": 0.75, "isp2": 0.25}
    assert answer.agrees is True
    assert {seen.spoofed for seen in lab.all_seen().values()} == {0}


def kept(affinity: str, rules: str = "") -> str:
    return f'[policies.kept]\ntiers = [["isp1", "isp2", "isp3"]]\naffinity = {{ key = "{affinity}" }}\n{rules}'


async def stays_and_moves_its_share_only(
    lab: Lab, daemon: DaemonProcess, wait_for: WaitFor, sources: list[str], targets: list[IPAddress]
) -> None:
    """Every pair of client and server keeps its uplink over a restart; when one is lost, only its own move."""

    async def seen() -> dict[tuple[str, IPAddress], int | None]:
        return {(s, t): u for t in targets for s, u in (await uplinks_of(lab, sources, t)).items()}

    before = await seen()
    assert set(before.values()) == {1, 2, 3}
    assert await seen() == before
    daemon.stop()
    await asyncio.to_thread(daemon.start)
    assert await seen() == before
    lab.cut(1)
    await asyncio.to_thread(wait_for, lambda: daemon.uplink(1).state == "down")
    after = await seen()
    assert {pair: u for pair, u in after.items() if before[pair] != 1} == {p: u for p, u in before.items() if u != 1}
    assert set(after.values()) == {2, 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_client_and_server_together_keep_their_uplink_over_restart_and_loss(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    toml = configuration(lab.topology, (1, 1, 1)) + kept("source-destination", rule(to='policy = "kept"'))
    daemon = start_daemon(lab, toml)
    sources = many_clients(lab, family, 12)
    targets = [SERVERS[family][0], SERVERS[family][-1]]
    with_servers(lab, lambda: stays_and_moves_its_share_only(lab, daemon, wait_for, sources, targets))


@pytest.mark.parametrize("family", FAMILIES)
def test_clients_of_a_group_of_domains_keep_their_uplink_over_restart_and_loss(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, family: Family
) -> None:
    bank, shop, other = SERVERS[family][1], SERVERS[family][2], SERVERS[family][0]
    group = rule('domains = ["bank.example", "shop.example"]', to='policy = "kept"') + rule(to='uplink = "isp3"')
    with resolving(lab, {"bank.example": Zone([str(bank)]), "shop.example": Zone([str(shop)])}):
        daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + kept("source", group))
        sources = many_clients(lab, family, 9)

        async def story() -> None:
            assert set((await uplinks_of(lab, sources[:3], other)).values()) == {3}
            by_bank, by_shop = await uplinks_of(lab, sources, bank), await uplinks_of(lab, sources, shop)
            assert by_bank == by_shop
            await stays_and_moves_its_share_only(lab, daemon, wait_for, sources, [bank])

        with_servers(lab, story)


EVERY_KIND = (
    '[policies.default]\nalgorithm = "source-parity"\ntiers = [["isp1", "isp2"]]\n'
    + rule(f'to = ["{SERVERS[Family.V4][2]}", "{SERVERS[Family.V6][2]}"]', to='uplink = "isp3"')
    + rule(f'from = ["{OTHER_CLIENT[Family.V4]}", "{OTHER_CLIENT[Family.V6]}"]', to='uplink = "isp2"')
    + rule('protocol = "tcp"', f"port = {OTHER_PORT}", to='uplink = "isp2"')
    + rule('dscp = "ef"', to='uplink = "isp3"')
)
"""Rules by destination, source, port and DSCP in one file; what is left goes by the parity of its source."""


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_of_every_kind_are_told_by_why_and_seen_with_packets(
    lab: Lab, start_daemon: StartDaemon, family: Family
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + EVERY_KIND)
    even, odd = many_clients(lab, family, 2)[::-1]
    third = OTHER_CLIENT[family]
    as_clients(lab, [third])
    near, far = SERVERS[family][0], SERVERS[family][2]

    async def story() -> None:
        ask, servers = Asker(lab), Servers()
        try:
            await servers.listen(lab.server, family, OTHER_PORT)
            # Source, server, port, DSCP; then the number of the rule and the uplink.
            for source, target, port, dscp, number, uplink in (
                (even, near, ECHO_PORT, 0, None, 1),
                (odd, near, ECHO_PORT, 0, None, 2),
                (even, far, ECHO_PORT, 0, 1, 3),
                (third, far, ECHO_PORT, DSCP_EF, 1, 3),
                (third, near, ECHO_PORT, DSCP_EF, 2, 2),
                (even, near, OTHER_PORT, 0, 3, 2),
                (even, near, ECHO_PORT, DSCP_EF, 4, 3),
                (odd, near, ECHO_PORT, DSCP_EF, 4, 3),
            ):
                answer = await asyncio.to_thread(why, daemon, source, target, port, dscp=str(dscp))
                assert (answer.rule, list(shares_of_why(answer)), answer.agrees) == (number, [f"isp{uplink}"], True)
                assert await ask.tcp(target, source=source, dscp=dscp, server_port=port) == uplink
        finally:
            await servers.close()

    with_servers(lab, story)


def test_check_refuses_packet_by_packet_balancing_where_addresses_are_translated(tmp_path: Path) -> None:
    file = tmp_path / "polywan.toml"
    file.write_text(
        '[uplinks.fibre]\ninterface = "eth1"\n[uplinks.tunnel]\ninterface = "wg0"\nnat = "none"\n'
        '[policies.default]\nalgorithm = "per-packet"\ntiers = [["fibre", "tunnel"]]\n'
    )
    argv = [sys.executable, "-m", "polywan", "check", "--config", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{file}:7: policies.default.algorithm" in done.stderr
    assert "source addresses are translated on fibre: servers and firewalls would drop packets" in done.stderr
    assert "tunnel:" not in done.stderr
    assert 'use algorithm = "weighted"' in done.stderr


def by_the_hour(lab: Lab, near: str, far: str) -> str:
    """Return a configuration: two to one by day and one to two by night; `near` and `far` are spans of the week."""
    names = [u.name for u in lab.topology.uplinks]
    policies = ""
    for policy, weights in (("day", (2, 1)), ("night", (1, 2))):
        members = (f'{{uplink = "{n}", weight = {w}}}' for n, w in zip(names, weights, strict=True))
        policies += f"[policies.{policy}]\ntiers = [[{', '.join(members)}]]\n"
    rules = "".join(
        f'[[rules]]\ntime = "{span}"\npolicy = "{name}"\n' for name, span in (("day", near), ("night", far))
    )
    return f"{configuration(lab.topology, (1, 1))}\n{policies}{rules}"


def test_weights_that_change_with_the_hour_move_no_live_connection(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    hour = time.localtime().tm_hour
    # Half a day around now, and the other half: neither ends while this runs.
    now = f"{(hour - 6) % 24:02d}:00-{(hour + 6) % 24:02d}:00"
    then = f"{(hour + 6) % 24:02d}:00-{(hour - 6) % 24:02d}:00"
    daemon = start_daemon(lab, by_the_hour(lab, now, then))

    async def story() -> None:
        with closing(await open_connections(lab, 12, SERVERS[Family.V4][0])) as opened:
            before = [a.uplink for a in opened.attempts]
            assert shares(before) == {1: 8, 2: 4}
            daemon.config.write_text(by_the_hour(lab, then, now))
            daemon.reload()
            with closing(await open_connections(lab, 12, SERVERS[Family.V4][0])) as later:
                assert shares(a.uplink for a in later.attempts) == {1: 4, 2: 8}
            for connection in opened.connections:
                assert await connection.ask("still there?")

    with_servers(lab, story)
