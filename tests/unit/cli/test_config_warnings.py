"""Where people meet what is odd in a good configuration: `polywan check`, the log, `status`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from polywan.cli import group
from polywan.config import load_with_warnings
from polywan.core.engine import step as engine
from polywan.core.plan.plan import ActualState
from polywan.core.state.effects import Level, Log
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.state.state import State
from polywan.core.status.document import document
from support.engine_world import config, world

COVERED = """\
[uplinks.fibre]
interface = "eth1"
[[rules]]
uplink = "fibre"
[[rules]]
action = "block"
to = "192.0.2.0/24"
"""
ODD = "polywan.toml:5: rule 2: never matches"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the machine under the tests has to say: nothing, unless a test appends to it."""
    said: list[str] = []
    monkeypatch.setattr("polywan.daemon.here.warnings", lambda _: said)
    return said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "polywan.toml"
    file.write_text(COVERED, encoding="utf-8")
    return file


def test_check_prints_warnings_on_stderr_and_succeeds(path: Path) -> None:
    done = CliRunner().invoke(group, ["check", "--config", str(path)])
    assert done.exit_code == 0
    assert done.stderr == (
        f"warning: {path}:5: rule 2: never matches: every connection it could match is already taken by "
        f"rule 1 at {path}:3 (move the narrower rule before the wider one, or remove it)\n"
    )
    assert done.stdout == f"{path}: OK (1 uplink, 1 policy, 2 rules)\n"


def test_check_lists_warnings_as_json(path: Path) -> None:
    done = CliRunner().invoke(group, ["check", "--config", str(path), "--json"])
    facts = json.loads(done.stdout)
    assert (done.exit_code, done.stderr, facts["ok"]) == (0, "", True)
    assert [(w["where"], w["key"]) for w in facts["warnings"]] == [(f"{path}:5", "rules[1]")]


def test_what_the_machine_has_to_say_is_warned_of_too(path: Path, machine: list[str]) -> None:
    machine.append("uplink fibre: interface eth1 does not exist")
    done = CliRunner().invoke(group, ["check", "--config", str(path)])
    assert done.exit_code == 0
    assert done.stderr.endswith("warning: uplink fibre: interface eth1 does not exist\n")
    facts = json.loads(CliRunner().invoke(group, ["check", "--config", str(path), "--json"]).stdout)
    last = {"where": "this machine", "key": "", "message": "uplink fibre: interface eth1 does not exist", "hint": ""}
    assert facts["warnings"][-1] == last


def test_a_good_file_has_an_empty_list_of_warnings(path: Path) -> None:
    path.write_text('[uplinks.fibre]\ninterface = "eth1"\n', encoding="utf-8")
    facts = json.loads(CliRunner().invoke(group, ["check", "--config", str(path), "--json"]).stdout)
    assert facts["warnings"] == []


def test_warnings_are_logged_and_stay_in_the_status_until_the_next_file(path: Path) -> None:
    loaded = load_with_warnings(path)
    texts = tuple(map(str, loaded.warnings))
    state, effects = engine.step(State(), ConfigLoaded(config(1), texts), 0.0)
    assert [e for e in effects if isinstance(e, Log)] == [Log(Level.WARNING, "config.warning", texts[0])]
    state, _ = engine.step(state, ReadDone(world(1), ActualState()), 0.0)
    assert [w for w in document(state, "1", 0.0, 0.0, {}).warnings if ODD in w] == list(texts)
    state, effects = engine.step(state, ConfigLoaded(config(1)), 1.0)
    assert not [e for e in effects if isinstance(e, Log)]
    assert not [w for w in document(state, "1", 0.0, 0.0, {}).warnings if ODD in w]
