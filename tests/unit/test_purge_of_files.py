"""Purging the package removes the files that polywan made in /etc, and no others."""

from __future__ import annotations

import subprocess
from pathlib import Path

from polywan.core.trial.record import RECORD_SUFFIX
from polywan.trial.place import LOCK_SUFFIX, REJECTED

POSTRM = Path(__file__).parents[2] / "packaging/debian/polywan.postrm"
MADE = [
    "polywan.toml",
    f"polywan.toml{RECORD_SUFFIX}",
    f"polywan.toml{REJECTED}",
    f".polywan.toml{LOCK_SUFFIX}",
    "conf.d/a.toml",
    f"conf.d/a.toml{REJECTED}",
]


def purge(root: Path) -> str:
    done = subprocess.run(
        ["sh", str(POSTRM), "purge"],
        env={"DPKG_ROOT": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_nothing_that_polywan_made_stays(tmp_path: Path) -> None:
    config = tmp_path / "etc/polywan"
    (config / "conf.d").mkdir(parents=True)
    for name in MADE:
        (config / name).touch()
    assert purge(tmp_path) == ""
    assert not config.exists()


def test_the_state_of_the_daemon_and_of_the_page_goes(tmp_path: Path) -> None:
    for name in ("polywan/memory.json", "polywan-web/tokens.json", "other/file"):
        (tmp_path / "var/lib" / name).parent.mkdir(parents=True)
        (tmp_path / "var/lib" / name).touch()
    purge(tmp_path)
    assert [path.name for path in (tmp_path / "var/lib").iterdir()] == ["other"]


def test_what_somebody_else_keeps_there_stays_and_is_told(tmp_path: Path) -> None:
    config = tmp_path / "etc/polywan"
    config.mkdir(parents=True)
    for name in ("polywan.toml", "list.txt"):
        (config / name).touch()
    assert "stays: there are files in it that polywan did not make" in purge(tmp_path)
    assert [file.name for file in config.iterdir()] == ["list.txt"]
