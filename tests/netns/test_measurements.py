"""Measurements by the real daemon: bytes are those of the kernel's counters, and survive its death."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING

from polywan.api import calls
from polywan.api.requests import OfIncidents, OfMeasurements, OfMonth, OfSpan, Words
from polywan.api.views.flow_rows import rows_of
from polywan.api.views.measurements import Beat
from polywan.core.measurements.clients import THIS_MACHINE, ClientCounter, Surroundings
from polywan.core.net import Family
from polywan.core.status.tally import Bytes
from polywan.kernel.conntrack import table as conntrack
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import LAN_CLIENT, SERVERS
from polywan.lab.traffic import SteadyLoad, open_connections
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon

MASK = 0x3F00_0000
PROBES = 6_000
"""Bytes that probes may move between two questions."""


def counted(lab: Lab, number: int) -> tuple[int, int]:
    """Return bytes received and sent by an uplink's device, as the kernel counts them."""
    device = lab.topology.uplink(number).interface
    lines = lab.router.run(["cat", "/proc/net/dev"]).stdout.splitlines()
    (fields,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith(f"{device}:"))
    return int(fields[0]), int(fields[8])


def volume(daemon: DaemonProcess, uplink: str) -> tuple[int, int]:
    found = [v for v in daemon.client.ask(calls.VOLUMES, OfMonth()).uplinks if v.uplink == uplink]
    return sum(v.rx_bytes for v in found), sum(v.tx_bytes for v in found)


def last_beat(daemon: DaemonProcess, uplink: str) -> Beat:
    return daemon.client.ask(calls.AVAILABILITY, OfSpan()).uplinks[uplink][-1]


def test_volumes_are_what_the_kernel_counted_also_over_a_kill(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    name = lab.topology.uplink(1).name

    async def story() -> None:
        await until(lambda: volume(daemon, name)[0] > 0)
        before, had = volume(daemon, name), counted(lab, 1)
        async with SteadyLoad(lab):
            await until(lambda: counted(lab, 1)[0] > had[0] + 30_000)
            daemon.kill()
            await until(lambda: counted(lab, 1)[0] > had[0] + 60_000)
        daemon.start()
        await until(lambda: volume(daemon, name)[0] > before[0] + 60_000 - PROBES)
        after, has = volume(daemon, name), counted(lab, 1)
        for place in (0, 1):
            assert abs((after[place] - before[place]) - (has[place] - had[place])) < PROBES

    with_servers(lab, story)


def test_an_outage_is_measured_and_told_with_its_evidence(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    name = lab.topology.uplink(1).name
    began = time.time()

    async def story() -> None:
        async with SteadyLoad(lab):
            await until(lambda: daemon.uplink(1).rx_bytes > 20_000)
            lab.cut(1)
            await until(lambda: daemon.uplink(1).state == "down")
            await until(lambda: last_beat(daemon, name).down >= 2)
        (incident,) = daemon.client.ask(calls.INCIDENTS, OfIncidents(uplink=name)).incidents
        assert (incident.uplink, incident.state, incident.until) == (name, "down", None)
        assert "no carrier" in incident.reason
        assert len(incident.evidence) == 1
        beat = last_beat(daemon, name)
        assert beat.up >= 1
        assert any("no carrier" in reason for reason in beat.reasons)
        assert beat.up + beat.down + beat.degraded + beat.off <= time.time() - began + 3
        measured = daemon.client.ask(calls.MEASURED, OfMeasurements(uplink=name, since="20s", points="20"))
        (series,) = measured.series
        assert measured.step_s == 1
        served = [point[series.columns.index("served")] for point in series.points]
        assert 0.0 in served
        assert 1.0 in served
        assert max(point[series.columns.index("rx_bps")] or 0.0 for point in series.points) > 1000
        assert any(point[series.columns.index("rtt_ms")] for point in series.points)

    with_servers(lab, story)


def test_the_bytes_of_a_client_are_those_of_its_connections(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    uplinks, counter = daemon.status().uplinks, ClientCounter()
    own = {address for uplink in uplinks for address in (uplink.address, uplink.address6) if address}
    around = Surroundings(own, [LAN_CLIENT[Family.V4].network], {uplink.mark: uplink.name for uplink in uplinks})

    def look() -> dict[str, Bytes]:
        with lab.router.entered():
            return counter.look(conntrack.flows(MASK), around, 0.0)

    async def story() -> None:
        client = str(LAN_CLIENT[Family.V4].ip)
        look()
        with closing(await open_connections(lab, 6, SERVERS[Family.V4][0])) as opened:
            first = look()
            await asyncio.gather(*(connection.ask("x" * 5000) for connection in opened.connections))
            more = look()
            seen = rows_of(daemon.client.ask(calls.FLOWS, Words(words={"client": client})))
            assert first[client].rx + more[client].rx == sum(flow.bytes_down or 0 for flow in seen)
            assert first[client].tx + more[client].tx == sum(flow.bytes_up or 0 for flow in seen)
            assert more[client].tx > 6 * 5000
            assert {*more} <= {client, THIS_MACHINE}
            assert sum(counter.connections.values()) >= 6
        assert client not in look() or look().get(client, Bytes(0, 0)).tx < 6 * 5000

    with_servers(lab, story)


def test_a_report_is_printed_from_a_running_daemon(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    name = lab.topology.uplink(1).name

    async def story() -> None:
        await until(lambda: volume(daemon, name)[0] > 0)
        for words in ([], ["--format", "csv"], ["--format", "html"], ["--json"], ["--uplink", name]):
            done = await asyncio.to_thread(polywan, daemon, "report", *words)
            assert (done.returncode, done.stderr) == (0, "")
            assert name in done.stdout
        assert "available 100.000 %" in done.stdout

    with_servers(lab, story)
