"""`polywan lab` as a user runs it: outside any sandbox of its own, to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from polywan.lab import sandbox


def test_every_promise_is_held_on_three_uplinks(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    environment = {name: value for name, value in os.environ.items() if name != sandbox.INSIDE}
    argv = [sys.executable, "-m", "polywan", "lab", "--json", "--keep-log", str(log)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    broken = [promise for promise in report["promises"] if not promise["held"]]
    assert broken == [], done.stderr
    assert done.returncode == 0
    assert {event["step"]["kind"] for event in report["events"]} == {"carrier", "silence", "crash", "reload"}
    assert "ready" in log.read_text(encoding="utf-8")


def test_a_usage_error_is_told_before_anything_is_built() -> None:
    argv = [sys.executable, "-m", "polywan", "lab", "--uplinks", "63"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "63 is not in the range" in done.stderr
