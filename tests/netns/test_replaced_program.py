"""An upgrade replaces the files of a daemon that runs; until it is restarted it has to do with what it has loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.core.errors import ConfigError
from polywan.lab.daemon import Child, DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from support.netns import polywan

if TYPE_CHECKING:
    from support.netns import WaitFor

LIBRARIES = (
    "annotated_types", "anyio", "click", "dns", "h11", "idna", "pydantic", "pydantic_core", "starlette",
    "typing_extensions", "typing_inspection", "uvicorn",
)  # fmt: skip
RULES = """
[[rules]]
domains = ["example.net"]
uplink = "isp2"
"""

COMMANDS = (
    *("status", "status isp1", "why 192.168.15.10 203.0.113.10:443", "flows", "affinity", "events"),
    *("show nft", "show routes", "show rules", "show config", "show dnsmasq"),
    *("uplink test isp1", "uplink disable isp2", "uplink enable isp2", "uplink drain isp3 --deadline 0"),
    "uplink enable isp3",
)


def copy_of_the_program(place: Path) -> Path:
    """Return a tree as the package has it."""
    for name in ("polywan", *LIBRARIES):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(origin, place / origin.name)
    return place


def replace(tree: Path) -> None:
    """Take everything of polywan away, and of libraries all but those that load parts of themselves late."""
    for place in tree.iterdir():
        if place.name not in {"anyio", "dns", "idna"}:
            shutil.rmtree(place) if place.is_dir() else place.unlink()


def test_a_daemon_whose_files_are_gone_goes_on_with_all_that_it_does(
    lab: Lab, tmp_path: Path, wait_for: WaitFor
) -> None:
    tree = copy_of_the_program(tmp_path / "tree")
    launcher = f"import sys; sys.path.insert(0, {str(tree)!r}); from polywan.__main__ import main; main()"

    def spawn(namespace: Namespace, arguments: Sequence[str]) -> Child:
        argv = [sys.executable, "-ISB", "-c", launcher, *arguments]
        return namespace.start(argv, stderr=subprocess.PIPE, environment={"PYTHONUNBUFFERED": "1"})

    good = configuration(lab.topology, (1, 1, 1))
    daemon = DaemonProcess(lab.router, good, Path("/run/polywan-replaced"), spawn)
    try:
        daemon.start()
        replace(tree)
        daemon.config.write_text(good.replace("weight = 1", "weight = 2", 1) + RULES)
        daemon.reload()
        daemon.config.write_text("[uplinks.isp1]\ninterface = 7\nwieght = 1\n")
        with pytest.raises(ConfigError, match=r"polywan.toml:3: .*wieght"):
            daemon.reload()
        daemon.config.write_text(good)
        for words in (*COMMANDS, f"plan --config {daemon.config}"):
            done = polywan(daemon, *words.split())
            assert done.returncode in {0, 9}, (words, done.stderr)
        lab.cut(2)
        wait_for(lambda: daemon.uplink(2).state == "down")
        daemon.down()
    finally:
        daemon.stop()
    troubles = [line for line in daemon.troubles if "reload.refused" not in line]
    assert troubles == []
