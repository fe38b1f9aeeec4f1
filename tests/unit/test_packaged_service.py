from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from polywan.core.engine.agenda import RESYNC

SERVICE = Path(__file__).parents[2] / "packaging" / "polywan.service"
PAGE_SERVICE = SERVICE.with_name("polywan-web.service")
GENERATOR = SERVICE.with_name("polywan-generator")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def can_analyze() -> bool:
    """Tell whether this systemd can judge a unit that is not loaded, which it learnt in version 250."""
    return shutil.which("systemd-analyze") is not None and "--offline" in analyze("--help").stdout


@pytest.mark.skipif(not can_analyze(), reason="tool missing: systemd-analyze 250 or newer (package systemd)")
def test_the_service_is_sandboxed_to_an_exposure_of_at_most_2_0() -> None:
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=20", str(SERVICE))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@pytest.mark.skipif(not can_analyze(), reason="tool missing: systemd-analyze 250 or newer (package systemd)")
def test_the_page_is_sandboxed_to_an_exposure_of_at_most_1_5_without_any_capability() -> None:
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=15", str(PAGE_SERVICE))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    assert "\nCapabilityBoundingSet=\n" in PAGE_SERVICE.read_text("utf-8")


def test_the_watchdog_outlasts_one_failed_pass_where_passes_are_rarest() -> None:
    (seconds,) = re.findall(r"^WatchdogSec=(\d+)$", SERVICE.read_text("utf-8"), re.MULTILINE)
    assert int(seconds) >= 2 * max(RESYNC)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("systemd 252 (252.39-1~deb12u2)", ""),
        ("systemd 253", "notify-reload"),
        ("systemd 255 (255.4-1ubuntu8)\n+PAM", "notify-reload"),
        ("systemd 260~rc1 (260~rc1-1)", "notify-reload"),
        ("something else", ""),
    ],
)
def test_the_type_is_raised_where_systemd_knows_the_better_one(tmp_path: Path, version: str, kind: str) -> None:
    tool = tmp_path / "systemctl"
    tool.write_text(f"#!/bin/sh\ncat <<'end'\n{version}\nend\n")
    tool.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([GENERATOR, tmp_path / "normal", tmp_path / "early", tmp_path / "late"], env=path, check=True)
    written = [line for file in tmp_path.rglob("*.conf") for line in file.read_text("utf-8").splitlines()]
    assert written == (["[Service]", f"Type={kind}", "ReloadSignal=SIGCONT"] if kind else [])


def test_stopping_the_service_leaves_the_kernel_forwarding() -> None:
    assert not [line for line in SERVICE.read_text("utf-8").splitlines() if line.startswith("ExecStop")]


@pytest.mark.skipif(not can_analyze(), reason="tool missing: systemd-analyze 250 or newer (package systemd)")
@pytest.mark.parametrize("service", [SERVICE, PAGE_SERVICE], ids=lambda path: path.stem)
def test_systemd_finds_nothing_to_complain_of_once_the_program_is_installed(tmp_path: Path, service: Path) -> None:
    program = tmp_path / "polywan"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / service.name
    unit.write_text(service.read_text("utf-8").replace("=polywan ", f"={program} "))
    done = analyze("verify", "--man=no", str(unit))
    assert [line for line in done.stderr.splitlines() if service.name in line] == []
