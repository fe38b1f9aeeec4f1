"""Devices with any name that the kernel takes, beside uplinks with any that the file takes: nothing is a command."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polywan.cli import VERBS
from polywan.config import load
from polywan.core.words import printable
from polywan.lab.daemon import DaemonProcess, executed
from polywan.lab.network import Lab, build
from polywan.lab.scenario import configuration

HOME = Path("/run/polywan-names")
LAN = b'"};flush;{"'
NAMES = [
    b"$(id>X)",
    b"`id>X`",
    b"a;id>X",
    b"a|tee$IFS-aX",
    b"'q'&id>X",
    b"\\",
    b"-rf",
    b"--json",
    b"*",
    b"#c",
    b"{0.x}",
    b"<b>[red]",
    b"\x1b[2J\x1b]0;x\x07",
    b"\x01\x7f\xc2\x9b2J",
    b"\xe2\x80\xae\xc3\xbc",
    b"\xff\xfe",
]
"""Devices with an address and a default route, so that all look for uplinks among them. The kernel refuses `%`."""

UPLINKS = {"wan1": "..x", "wan2": "@set"}

STATE = ["--state-dir", str(HOME / "state")]
CONFIG = ["--config", str(HOME / "polywan.toml")]
RUNTIME = ["--runtime-dir", str(HOME)]
STRANGE = "$(id>X)\x1b[2J"

CALLS: dict[str, list[list[str]]] = {
    "init": [["--print", *STATE], ["--print", "--json", *STATE]],
    "check": [CONFIG, [*CONFIG, "--json"]],
    "doctor": [[*CONFIG, *STATE, *RUNTIME], [*CONFIG, *STATE, *RUNTIME, "--json"]],
    "plan": [[*CONFIG, *STATE, *RUNTIME], [*CONFIG, *STATE, *RUNTIME, "--json"]],
    "reload": [RUNTIME],
    "top": [RUNTIME],
    "status": [RUNTIME, [*RUNTIME, "--json"], ["isp1", *RUNTIME], [STRANGE, *RUNTIME]],
    "uplink": [
        *([verb, STRANGE, *RUNTIME] for verb in ("disable", "enable", "drain", "test")),
        ["drain", STRANGE, "--dry-run", *RUNTIME],
        ["disable", "isp1", "--dry-run", *RUNTIME],
    ],
    "metrics": [RUNTIME, ["--out", str(HOME / "polywan.prom"), *RUNTIME], ["--out", "x", "--every", STRANGE]],
    "quota": [RUNTIME, [*RUNTIME, "--json"], [STRANGE, *RUNTIME], [STRANGE, "--reading", STRANGE, *RUNTIME]],
    "events": [RUNTIME, [*RUNTIME, "--json"], ["--uplink", STRANGE, *RUNTIME]],
    "report": [
        RUNTIME,
        [*RUNTIME, "--json"],
        ["--format", "csv", *RUNTIME],
        ["--format", "html", *RUNTIME],
        ["--uplink", STRANGE, *RUNTIME],
        ["--month", STRANGE, *RUNTIME],
    ],
    "flows": [RUNTIME, [*RUNTIME, "--json"], ["--uplink", STRANGE, *RUNTIME]],
    "affinity": [[*RUNTIME], ["--policy", STRANGE, *RUNTIME]],
    "why": [["192.168.15.10", "203.0.113.10:443", *RUNTIME], [STRANGE, STRANGE, *RUNTIME]],
    "exec": [["--via", STRANGE, *RUNTIME, "true"]],
    "show": [[what, *RUNTIME] for what in ("nft", "routes", "rules", "config", STRANGE)],
    "try": [[STRANGE, *CONFIG, *RUNTIME], [*CONFIG, *RUNTIME]],
    "confirm": [CONFIG],
    "rollback": [CONFIG, [STRANGE, *CONFIG, *RUNTIME], ["0", "--yes", *CONFIG, *RUNTIME]],
    "history": [RUNTIME, [*RUNTIME, "--json"], ["0", *RUNTIME]],
    "bundle": [["--out", str(HOME / "bundle.tar.gz"), *CONFIG, *STATE, *RUNTIME]],
    "web": [["--listen", STRANGE], ["--host", STRANGE], ["token", "add", STRANGE], ["token", "revoke", STRANGE]],
    "version": [[]],
    "down": [[*RUNTIME, *STATE], [*RUNTIME, *STATE]],
}
"""How each verb is called; `run` is what all of them talk to, and `lab` has devices of its own."""


def ip(lab: Lab, *words: str | bytes) -> None:
    lab.router.run(["ip", *(os.fsdecode(word) for word in words)])


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[Lab, DaemonProcess]]:
    with build(2) as lab:
        for number, name in enumerate(NAMES):
            ip(lab, "link", "add", "name", name, "type", "veth", "peer", "name", f"p{number}")
            ip(lab, "address", "add", f"100.99.{number}.2/24", "dev", name)
            ip(lab, "link", "set", "dev", name, "up")
            ip(lab, "link", "set", "dev", f"p{number}", "up")
            ip(lab, "route", "add", "default", "via", f"100.99.{number}.1", "dev", name, "metric", f"{5000 + number}")
        text = configuration(lab.topology, (1, 1))
        for uplink in lab.topology.uplinks:
            lab.router.set_link(uplink.interface, up=False)
            ip(lab, "link", "set", "dev", uplink.interface, "name", UPLINKS[uplink.interface])
            text = text.replace(f'"{uplink.interface}"', f'"{UPLINKS[uplink.interface]}"')
            lab.router.set_link(UPLINKS[uplink.interface], up=True)
            via = f"via 100.64.{uplink.number}.1 dev {UPLINKS[uplink.interface]} metric {uplink.number}"
            ip(lab, "route", "add", "default", *via.split())
        ip(lab, "link", "set", "dev", "lan0", "down")
        ip(lab, "link", "set", "dev", "lan0", "name", LAN)
        ip(lab, "link", "set", "dev", LAN, "up")
        daemon = DaemonProcess(lab.router, text, HOME, executed)
        daemon.start()
        yield lab, daemon
        daemon.stop()


def call(lab: Lab, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "polywan", verb, *words]
    with lab.router.entered():
        return subprocess.run(argv, capture_output=True, check=False, cwd=HOME, text=True, errors="surrogateescape")


def test_every_verb_is_called() -> None:
    assert CALLS.keys() | {"run", "lab"} == VERBS.keys()


@pytest.mark.parametrize("verb", CALLS)
def test_no_name_orders_the_terminal_about_or_is_carried_out(machine: tuple[Lab, DaemonProcess], verb: str) -> None:
    for words in CALLS[verb]:
        done = call(machine[0], verb, *words)
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert done.returncode in range(10)
        assert said.translate({ord("\n"): None, ord("\t"): None}).isprintable(), words
        if done.returncode == 0 and "--json" in words:
            json.loads(done.stdout)
        assert not {*HOME.glob("X"), *HOME.glob("*X"), *Path("/").glob("X")}


def test_the_log_of_the_daemon_is_printable_and_tells_no_error(machine: tuple[Lab, DaemonProcess]) -> None:
    daemon = machine[1]
    assert all(line.text.isprintable() for line in daemon.log)
    assert daemon.troubles == []


def test_uplinks_with_odd_names_serve(machine: tuple[Lab, DaemonProcess]) -> None:
    lab, daemon = machine
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(10)
    daemon.start()
    found = {uplink.interface: uplink.gateway for uplink in daemon.status().uplinks}
    assert found == {"..x": "100.64.1.1", "@set": "100.64.2.1"}
    assert "table inet polywan" in lab.router.run(["nft", "list", "ruleset"]).stdout


def test_what_init_writes_is_a_file_that_means_the_same_devices(
    machine: tuple[Lab, DaemonProcess], tmp_path: Path
) -> None:
    file = tmp_path / "polywan.toml"
    file.write_text(call(machine[0], "init", "--print", *STATE).stdout)
    assert {uplink.interface for uplink in load(file).uplinks.values()} >= set(UPLINKS.values())


def test_commands_that_doctor_shows_name_a_device_as_one_word(machine: tuple[Lab, DaemonProcess]) -> None:
    said = call(machine[0], "doctor", *CONFIG, *STATE, *RUNTIME).stdout
    shown = re.findall(r"`(ip neighbour show .*)`: ", said)
    names = {printable(name.decode(errors="replace")) for name in NAMES}
    assert len(shown) > len(NAMES) // 2
    for command in shown:
        words = shlex.split(command)
        assert len(words) == 6
        assert words[-1] in names | {printable(name.decode(errors="surrogateescape")) for name in NAMES}
