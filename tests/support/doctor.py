"""Run `polywan doctor` in a namespace, and pick what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from polywan.api.codec import decode
from polywan.api.doctor import Diagnosis, Finding
from polywan.lab.namespaces import Namespace

EXITS = {True: 0, False: 6}


def doctor(place: Namespace, *words: str, config: Path | None = None, state: Path | None = None) -> Diagnosis:
    """Return what doctor finds in a namespace; its exit code must agree."""
    nowhere = Path("/nonexistent")
    argv = [sys.executable, "-m", "polywan", "doctor", "--json", *words]
    argv += ["--config", str(config or nowhere / "polywan.toml"), "--state-dir", str(state or nowhere)]
    done = place.run(argv, check=False)
    assert done.returncode in EXITS.values(), (done.returncode, done.stderr)
    found = decode(Diagnosis, json.loads(done.stdout))
    assert done.returncode == EXITS[found.healthy]
    assert "internal error" not in done.stdout, done.stdout
    return found


def of(found: Diagnosis, check: str) -> list[Finding]:
    """Return the findings of one check, which must have been made."""
    assert check in found.checked, found.not_checked
    return [finding for finding in found.findings if finding.check == check]


def only(found: Diagnosis, check: str) -> Finding:
    """Return the one finding of a check."""
    (finding,) = of(found, check)
    return finding


def mend(place: Namespace, finding: Finding) -> None:
    """Carry out the steps that are commands; files of the machine are left alone."""
    assert finding.fix is not None
    for step in finding.fix.steps:
        if step.command:
            place.run(list(step.command))


def printed(place: Namespace, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the verb as people do."""
    return place.run([sys.executable, "-m", "polywan", "doctor", *words], check=False)
