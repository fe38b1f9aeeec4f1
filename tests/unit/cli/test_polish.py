"""The command at its edges: full disks, pipes, words that are nearly right."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from polywan.api import calls
from polywan.api.affinity import Affinity
from polywan.api.flows import Flows
from polywan.api.views.flow_rows import FlowRow
from polywan.cli import exit_code, group
from polywan.cli.names import resolved
from polywan.client import Client
from polywan.config import ConfigError, load, load_text
from polywan.core.errors import ControlError

COMMAND = [sys.executable, "-m", "polywan"]


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "cannot write the output: no space left on device\n")


def test_a_reader_that_has_gone_is_not_complained_of() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "version"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


def test_what_nobody_thought_of_is_a_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(group, "main", broken)
    monkeypatch.setattr("polywan.cli.drop_output", lambda: None)
    from polywan.cli import main

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert "internal error in polywan (ZeroDivisionError: by nothing)" in message
    assert "Traceback" not in message


def test_ctrl_c_while_the_program_is_loaded_is_130() -> None:
    code = (
        "import sys, builtins; real = builtins.__import__\n"
        "def late(name, *a, **m):\n"
        "    if name == 'polywan.cli': raise KeyboardInterrupt\n"
        "    return real(name, *a, **m)\n"
        "from polywan.__main__ import main\nbuiltins.__import__ = late\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="there are no uplinks"):
        load(pipe)


def test_a_pipe_that_somebody_writes_to_is_read() -> None:
    text = b'[uplinks.a]\ninterface = "wan1"\n'
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    assert set(load(Path(f"/proc/self/fd/{reading}")).uplinks) == {"a"}
    os.close(reading)


@pytest.mark.parametrize(
    ("argv", "meant"), [(["staus"], "status"), (["uplink", "disble", "x"], "disable"), (["affinity", "claer"], "clear")]
)
def test_an_unknown_verb_is_answered_with_what_it_resembles(argv: list[str], meant: str) -> None:
    done = CliRunner().invoke(group, argv)
    assert done.exit_code == 2
    assert f'did you mean "{meant}"?' in done.output


def test_what_makes_no_sense_to_the_daemon_is_wrong_use() -> None:
    assert exit_code(ControlError("expected an address", 400)) == 2


def test_the_version_is_a_fact_too() -> None:
    done = CliRunner().invoke(group, ["version", "--json"])
    assert set(json.loads(done.output)) == {"version"}


@pytest.mark.parametrize("verb", ["uplink", "affinity"])
def test_help_is_not_cut(verb: str) -> None:
    assert "..." not in CliRunner().invoke(group, [verb, "--help"]).output.partition("Commands:")[2]


def test_lists_for_programs_say_which_schema_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        calls.AFFINITY: Affinity(schema=1, clients=()),
        calls.FLOWS: Flows(schema=1, columns=FlowRow._fields, flows=(), totals=()),
    }
    monkeypatch.setattr(Client, "ask", lambda _, call, asked: answers[call])
    monkeypatch.setattr(Client, "ask_in_parts", lambda _, call, asked, parts, take: answers[call])
    for verb in ("affinity", "flows"):
        assert json.loads(CliRunner().invoke(group, [verb, "--json"]).output)["schema"] == 1


def test_an_uplink_cannot_be_called_what_connections_without_one_are() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text('[uplinks.other]\ninterface = "wan1"\n')
    assert [p.key for p in caught.value.problems] == ["uplinks.other"]


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def look_up(host: str, port: None, family: int, kind: int) -> list[Any]:
        assert host == "example.com"
        wanted = {socket.AF_INET: ".", socket.AF_INET6: ":"}.get(socket.AddressFamily(family), "")
        found = [(family, kind, 6, "", (a, 0)) for a in addresses if wanted in a]
        if not found:
            raise socket.gaierror(-2, "Name or service not known")
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    ("target", "source", "address", "message"),
    [
        ("example.com", "-", "192.0.2.7", "example.com resolves to 192.0.2.7, the first of its 2 addresses"),
        ("example.com:443", "-", "192.0.2.7:443", "example.com resolves to 192.0.2.7, the first of its 2 addresses"),
        ("example.com:443", "2001:db8::9", "[2001:db8::1]:443", "example.com resolves to 2001:db8::1"),
        ("192.0.2.1:443", "-", "192.0.2.1:443", ""),
        ("[2001:db8::1]:443", "-", "[2001:db8::1]:443", ""),
        ("2001:db8::abcd", "-", "2001:db8::abcd", ""),
        ("fe80::1%eth0", "-", "fe80::1%eth0", ""),
    ],
)
def test_a_name_is_looked_up_once_and_told(
    monkeypatch: pytest.MonkeyPatch, target: str, source: str, address: str, message: str
) -> None:
    answers(monkeypatch, "192.0.2.7", "2001:db8::1")
    assert resolved(target, source) == (address, message)


def test_a_name_without_an_address_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    with pytest.raises(click.UsageError, match="cannot be looked up"):
        resolved("example.com", "-")


SAYS = """
import sys
import click
from polywan import cli
@click.command(name="events")
def command():
    for _ in range(2):
        click.echo("up → down")
cli.group.get_command = lambda *_: command
sys.argv = ["polywan", "events"]
cli.main()
"""


def test_a_reader_that_has_enough_in_the_middle_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", SAYS]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_without_arrows_shows_something_else() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", SAYS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "up ? down\n" * 2)
