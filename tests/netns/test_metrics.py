"""Metrics of a real daemon: what the kernel counts, what `status` says, and what a real Prometheus makes of it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from polywan.api.codec import decode
from polywan.api.status import Status
from polywan.core.metrics.exposition import content_type, negotiated, text
from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections
from support.monitoring import RULES
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def metrics(daemon: DaemonProcess) -> Values:
    """Return what `polywan metrics` prints."""
    written = polywan(daemon, "metrics").stdout
    families = text_string_to_metric_families(written)  # type: ignore[no-untyped-call]  # has no types
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of(values: Values, name: str, **labels: str) -> float | None:
    return values.get((name, frozenset(labels.items())))


def device_bytes(lab: Lab, interface: str) -> tuple[int, int]:
    """Return what `ip -s link` says of a device: bytes received and sent."""
    (found,) = json.loads(lab.router.run(["ip", "-s", "-j", "link", "show", "dev", interface]).stdout)
    return found["stats64"]["rx"]["bytes"], found["stats64"]["tx"]["bytes"]


def tracked(lab: Lab, mark: int) -> int:
    """Return how many connections conntrack(8) lists with a mark."""
    words = ["conntrack", "-L", "-m", f"{mark:#x}/0x3f000000"]
    return sum(len(lab.router.run([*words, "-f", family]).stdout.splitlines()) for family in ("ipv4", "ipv6"))


@pytest.mark.needs("conntrack")
def test_status_metrics_and_the_kernel_say_the_same(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    names = [(uplink.name, uplink.interface) for uplink in lab.topology.uplinks]

    def kernel() -> dict[str, tuple[int, int]]:
        return {name: device_bytes(lab, interface) for name, interface in names}

    def agreed() -> bool:
        before, counted = kernel(), {u.name: tracked(lab, u.mark) for u in daemon.status().uplinks}
        values = metrics(daemon)
        status = decode(Status, json.loads(polywan(daemon, "status", "--json").stdout))
        after = kernel()
        for uplink in status.uplinks:
            labels = {"uplink": uplink.name, "interface": uplink.interface}
            received = of(values, "polywan_uplink_receive_bytes_total", **labels)
            sent = of(values, "polywan_uplink_transmit_bytes_total", **labels)
            # Both commands take a moment, in which probes go on.
            if (received, sent) != (uplink.rx_bytes, uplink.tx_bytes) or received is None or sent is None:
                return False
            low, high = before[uplink.name], after[uplink.name]
            if not (low[0] <= received <= high[0] and low[1] <= sent <= high[1]):
                return False
            connections = of(values, "polywan_uplink_connections", **labels)
            if not connections == uplink.connections == counted[uplink.name]:
                return False
            share = of(values, "polywan_uplink_share_ratio", **labels, family="ipv4")
            assert share == uplink.shares["ipv4"]
            assert of(values, "polywan_uplink_weight", **labels) == uplink.weight
        return True

    async def story() -> None:
        with closing(await open_connections(lab, 12, SERVERS[Family.V4][0])) as opened:
            for connection in opened.connections:
                await connection.ask("x" * 1000)
            await until(agreed, timeout=30.0)

    with_servers(lab, story)


def test_probes_outages_and_failovers_are_counted(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    first = lab.topology.uplinks[0]
    labels = {"uplink": first.name, "interface": first.interface}
    ipv4 = {**labels, "family": "ipv4"}

    async def story() -> None:
        await until(lambda: (of(metrics(daemon), "polywan_probes_sent_total", **ipv4) or 0) >= 3)
        before = metrics(daemon)
        answered = of(before, "polywan_probe_rtt_seconds_count", **ipv4)
        lost = of(before, "polywan_probes_lost_total", **ipv4)
        assert answered is not None
        assert lost is not None
        assert answered + lost == of(before, "polywan_probes_sent_total", **ipv4)
        assert of(before, "polywan_uplink_outages_total", **labels) == 0
        lab.router.set_link(first.interface, up=False)
        await until(lambda: of(metrics(daemon), "polywan_uplink_outages_total", **labels) == 1)
        after = metrics(daemon)
        assert of(after, "polywan_uplink_state", **labels, polywan_uplink_state="down") == 1
        assert of(after, "polywan_policy_failovers_total", policy="default", family="ipv4") == 1
        assert of(after, "polywan_policy_members", policy="default", family="ipv4") == 2
        count = of(after, "polywan_probes_sent_total", **ipv4)
        assert count is not None
        assert count >= answered + lost

    with_servers(lab, story)


def test_a_configuration_that_is_refused_is_a_metric(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)), may_complain=True)
    good = daemon.config.read_text()
    daemon.config.write_text("nonsense")
    assert polywan(daemon, "reload").returncode == 3
    assert of(metrics(daemon), "polywan_config_last_reload_successful") == 0
    daemon.config.write_text(good)
    assert polywan(daemon, "reload").returncode == 0
    assert of(metrics(daemon), "polywan_config_last_reload_successful") == 1


def writer(daemon: DaemonProcess, out: Path, *words: str) -> list[str]:
    """Return the command that writes the file, without any right of root's, as the service has it."""
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    argv = [sys.executable, "-m", "polywan", "metrics", "--out", str(out), "--runtime-dir", str(daemon.runtime)]
    return [*bare, *argv, *words]


def test_a_file_is_written_as_long_as_the_daemon_comes_and_goes(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    out = tmp_path / "polywan.prom"

    def up() -> str:
        lines = out.read_text().splitlines() if out.exists() else []
        return next((line for line in lines if line.startswith("polywan_up ")), "")

    with running(writer(daemon, out, "--every", "1s")) as process:
        wait_for(lambda: up() == "polywan_up 1", 10)
        assert f'uplink="{lab.topology.uplinks[0].name}"' in out.read_text()
        daemon.stop()
        wait_for(lambda: up() == "polywan_up 0", 10)
        daemon.start()
        wait_for(lambda: up() == "polywan_up 1", 10)
        assert process.poll() is None


@contextmanager
def running(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


class Exporter(BaseHTTPRequestHandler):
    """What a page's process does: asks the daemon, and writes what the reader can read."""

    daemon: ClassVar[DaemonProcess]
    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        form = negotiated(self.headers.get("Accept"))
        body = text(self.daemon.status(), form).encode()
        self.asked.append(content_type(form))
        self.send_response(200)
        self.send_header("Content-Type", content_type(form))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def exporter(daemon: DaemonProcess) -> Iterator[int]:
    """Serve the metrics of a daemon on a port of 127.0.0.1."""
    Exporter.daemon, Exporter.asked = daemon, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return int(found.getsockname()[1])


def asked(port: int, path: str, **words: str) -> Any:
    """Return what Prometheus' API answers; None while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(words)}") as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def queried(port: int, query: str) -> dict[frozenset[tuple[str, str]], float]:
    found = asked(port, "query", query=query)
    kept = ("job", "uplink", "interface", "family", "polywan_uplink_state", "le")
    return {
        frozenset((key, value) for key, value in one["metric"].items() if key in kept): float(one["value"][1])
        for one in (found["result"] if found else ())
    }


def prometheus_file(folder: Path, page: int, node: int) -> Path:
    scrape = [
        {"job_name": name, "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in (("page", page), ("node", node))
    ]
    settings = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": scrape,
    }
    file = folder / "prometheus.yml"
    # JSON is YAML.
    file.write_text(json.dumps(settings))
    return file


@pytest.mark.needs("prometheus", "node_exporter")
def test_prometheus_reads_the_page_and_the_file_and_finds_the_same(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    out = tmp_path / "textfiles/polywan.prom"
    out.parent.mkdir()
    subprocess.run(writer(daemon, out), check=True)
    first = lab.topology.uplinks[0]
    state = f'polywan_uplink_state{{uplink="{first.name}", polywan_uplink_state="up"}}'
    with lab.router.entered(), ExitStack() as stack:
        node, own = free_port(), free_port()
        page = stack.enter_context(exporter(daemon))
        collector = ["--collector.disable-defaults", "--collector.textfile"]
        folder = f"--collector.textfile.directory={out.parent}"
        address = f"--web.listen-address=127.0.0.1:{node}"
        stack.enter_context(running(["prometheus-node-exporter", *collector, folder, address]))
        file = f"--config.file={prometheus_file(tmp_path, page, node)}"
        store = f"--storage.tsdb.path={tmp_path / 'tsdb'}"
        stack.enter_context(running(["prometheus", file, store, f"--web.listen-address=127.0.0.1:{own}"]))
        wait_for(lambda: len(queried(own, state)) == 2, 60)
        found = queried(own, state)
        assert set(found.values()) == {1.0}
        assert {dict(labels)["job"] for labels in found} == {"page", "node"}
        assert Exporter.asked[-1] == content_type()
        assert set(queried(own, "node_textfile_scrape_error").values()) == {0.0}
        weights = queried(own, 'polywan_uplink_weight{job="page"}')
        assert sorted(weights.values()) == [1.0, 2.0, 3.0]
        assert queried(own, 'count by (job) (polywan_probe_rtt_seconds_bucket{le="+Inf"})').values()
        wait_for(lambda: len(queried(own, 'polywan:probe_loss:ratio5m{job="page"}')) == 6, 20)
        types = asked(own, "metadata", metric="polywan_probe_rtt_seconds")
        assert {one["type"] for one in types["polywan_probe_rtt_seconds"]} == {"histogram"}
        rules = [rule for group in asked(own, "rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} == {"ok"}
