"""The command as a user meets it: exit codes, output on the right stream, nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from polywan.cli import VERBS, exit_code, group
from polywan.config import load
from polywan.core.errors import (
    BusyError,
    CapacityError,
    ConfigError,
    ControlError,
    KernelError,
    MissingFeature,
    NotPermitted,
)
from polywan.core.status.exit_code import exit_code as verdict
from polywan.daemon.offline import dump, recording
from support.documents import uplink
from support.engine_world import Engine, world

CASE = Path(__file__).parents[2] / "golden/cases/two_uplinks_share_by_weight"


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "polywan", *map(str, argv)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("verb", [v for v in VERBS if v != "version"])
def test_every_verb_has_help_with_examples(verb: str) -> None:
    shown = CliRunner().invoke(group, [verb, "--help"])
    assert shown.exit_code == 0
    assert "Examples:\n" in shown.output
    assert f"polywan {verb}" in shown.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([]), 3),
        (CapacityError("full"), 3),
        (ControlError("gone"), 4),
        (ControlError("no", 403), 5),
        (ControlError("broken", 500), 1),
        (NotPermitted("no"), 5),
        (KernelError("x", 1, "EPERM"), 5),
        (KernelError("x", 22, "EINVAL"), 1),
        (MissingFeature("nft"), 1),
        (BusyError("taken"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["up", "up"], 0),
        (["up", "disabled"], 0),
        (["up", "down"], 6),
        (["up", "degraded"], 6),
        (["up", "missing"], 6),
        (["down", "missing"], 7),
        (["disabled"], 7),
        (["up", "draining", "drained"], 0),
        (["drained", "disabled"], 7),
    ],
)
def test_status_check_tells_degraded_from_down(states: list[str], code: int) -> None:
    assert verdict([uplink("a", s) for s in states]) == code


def test_a_bad_file_is_exit_3_with_every_problem_on_stderr(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[uplinks.a]\ninterfce = 'eth0'\nweight = -1\n")
    done = run("check", "--config", bad)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{bad}:3: uplinks.a.weight" in done.stderr
    assert 'did you mean "interface"?' in done.stderr


def test_a_bad_file_as_json_names_each_key(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[uplinks.a]\ninterface = 'eth0'\nweight = -1\n")
    done = run("check", "--config", bad, "--json")
    assert done.returncode == 3
    assert [p["key"] for p in json.loads(done.stdout)["problems"]] == ["uplinks.a.weight"]


def test_no_daemon_is_exit_4(tmp_path: Path) -> None:
    done = run("status", "--runtime-dir", tmp_path)
    assert done.returncode == 4
    assert "control.sock: no such file or directory; is `polywan run` running" in done.stderr


def test_an_unknown_verb_is_exit_2() -> None:
    assert run("frobnicate").returncode == 2


def test_a_plan_against_a_recording_needs_nothing_of_this_machine(tmp_path: Path) -> None:
    done = run("plan", "--config", CASE / "config.toml", "--observed", CASE / "observed.json", "--state-dir", tmp_path)
    assert done.returncode == 9, done.stderr
    assert done.stdout.splitlines()[0].startswith("sysctl net.ipv4.conf.wan1.rp_filter = 0 (was 1)")


def test_a_plan_as_json_counts_its_operations(tmp_path: Path) -> None:
    done = run(
        "plan",
        "--config",
        CASE / "config.toml",
        "--observed",
        CASE / "observed.json",
        "--state-dir",
        tmp_path,
        "--json",
    )
    document = json.loads(done.stdout)
    assert document["changes"] == len(document["ops"]) > 20


def test_nothing_to_change_is_exit_0(tmp_path: Path) -> None:
    settled = Engine(load(CASE / "config.toml"), world(2)).state
    assert settled.known.actual is not None
    record = tmp_path / "box.json"
    record.write_bytes(dump(recording(world(2), settled.known.actual)))
    done = run("plan", "--config", CASE / "config.toml", "--observed", record, "--state-dir", tmp_path)
    assert (done.returncode, done.stdout) == (0, "nothing to change\n")


def test_a_file_that_is_no_recording_is_said_so(tmp_path: Path) -> None:
    junk = tmp_path / "junk.json"
    junk.write_text("{}")
    done = run("plan", "--config", CASE / "config.toml", "--observed", junk)
    assert done.returncode == 1
    assert "not a recording of a machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_runtime_directory_that_cannot_be_made_is_said_so() -> None:
    done = run("run", "--config", CASE / "config.toml", "--runtime-dir", "/proc/nowhere/polywan")
    assert done.returncode in (1, 5)
    assert "cannot use the runtime directory /proc/nowhere/polywan" in done.stderr
    assert "Traceback" not in done.stderr


HEAVY = ("pydantic", "starlette", "uvicorn", "rich", "asyncio", "polywan.kernel", "polywan.daemon", "polywan.probe")


@pytest.mark.parametrize("verb", ["status", "metrics"])
def test_what_is_called_often_imports_nothing_heavy(verb: str) -> None:
    code = f"import sys, polywan.cli.{verb}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        (None, "{path}: rule 1: list: ", "cannot be read: no such file or directory"),
        ("10.0.0.0/8\n10.0.0.5/8\n", "{path}:2: rule 1: list: ", "never matches"),
        ("x" * 17_000_000, "{path}: rule 1: list: ", "is 17 MB; a list may have 16 MiB"),
    ],
)
def test_check_warns_of_lists_that_cannot_be_read(
    tmp_path: Path, content: str | None, where: str, message: str
) -> None:
    path = tmp_path / "list"
    if content is not None:
        path.write_text(content)
    file = tmp_path / "polywan.toml"
    file.write_text(f'[uplinks.fibre]\ninterface = "wan1"\n[[rules]]\nlist = "{path}"\nuplink = "fibre"\n')
    done = run("check", "--config", file)
    assert (done.returncode, "OK" in done.stdout) == (0, True)
    assert f"warning: {where.format(path=path)}" in done.stderr
    assert message in done.stderr


def test_usage_names_the_command_as_users_know_it() -> None:
    assert run("show", "nonsense").stderr.startswith("Usage: polywan show ")
