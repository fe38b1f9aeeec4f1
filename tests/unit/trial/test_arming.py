"""How the supervisor is started where systemd is, and how polywan calls itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polywan.trial.arming import in_unit, launcher


def test_under_systemd_the_supervisor_is_a_unit_of_its_own() -> None:
    words = in_unit(["/usr/bin/polywan", "supervise", "--config", "/etc/polywan/polywan.toml"], "a1", "polywan.service")
    assert words[0] == "systemd-run"
    assert "--collect" in words
    assert "--unit=polywan-trial-a1" in words
    assert "--property=LogExtraFields=OBJECT_SYSTEMD_UNIT=polywan.service" in words
    assert words[words.index("--") :] == [
        "--",
        "/usr/bin/polywan",
        "supervise",
        "--config",
        "/etc/polywan/polywan.toml",
    ]
    assert not any("--scope" in word or "--user" in word for word in words)


def test_it_is_called_as_this_program_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "polywan"
    program.touch()
    monkeypatch.setattr(sys, "argv", [str(program), "try"])
    assert launcher() == [str(program)]
    monkeypatch.setattr(sys, "argv", ["/elsewhere/polywan/__main__.py", "try"])
    assert launcher() == [sys.executable, "-m", "polywan"]
