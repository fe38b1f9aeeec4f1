from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "packaging" / "polywan.service"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def can_analyze() -> bool:
    """Tell whether this systemd can judge a unit that is not loaded, which it learnt in version 250."""
    return shutil.which("systemd-analyze") is not None and "--offline" in analyze("--help").stdout


@pytest.mark.skipif(not can_analyze(), reason="tool missing: systemd-analyze 250 or newer (package systemd)")
def test_the_service_is_sandboxed_to_an_exposure_of_at_most_2_5() -> None:
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=25", str(SERVICE))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_stopping_the_service_leaves_the_kernel_forwarding() -> None:
    assert not [line for line in SERVICE.read_text("utf-8").splitlines() if line.startswith("ExecStop")]


@pytest.mark.skipif(not can_analyze(), reason="tool missing: systemd-analyze 250 or newer (package systemd)")
def test_systemd_finds_nothing_to_complain_of_once_the_program_is_installed(tmp_path: Path) -> None:
    program = tmp_path / "polywan"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text("utf-8").replace("=polywan ", f"={program} "))
    done = analyze("verify", "--man=no", str(unit))
    assert [line for line in done.stderr.splitlines() if SERVICE.name in line] == []
