"""The command line of scripts/package."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from deb.errors import BuildError
from deb.stage import Order, output, stage
from deb.wheels import MACHINES

ROOT: Final = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    """Say something beside the path of the package."""
    print(f"polywan: {text}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Build the package that the command line asks for; return the exit status."""
    words = argparse.ArgumentParser(prog="scripts/package", add_help=False)
    words.add_argument("--arch", choices=sorted(MACHINES))
    words.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    words.add_argument("--version", metavar="VERSION")
    options = words.parse_args(argv)
    try:
        order = Order(ROOT, options.arch or _architecture(), options.version or _version(), _epoch())
        print(_build(order, options.out.absolute()))
    except BuildError as error:
        say(str(error))
        return 1
    return 0


def _architecture() -> str:
    here = output(["dpkg", "--print-architecture"])
    if here not in MACHINES:
        raise BuildError(f"there are no locked wheels for {here}: --arch {' or '.join(sorted(MACHINES))}")
    return here


def _version() -> str:
    text = (ROOT / "src/polywan/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise BuildError("src/polywan/__init__.py: __version__ is missing")
    return found[1]


def _epoch() -> int:
    """Return the time that files bear: that of the last commit, so that equal checkouts give equal packages."""
    if date := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(date)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout.strip():
        return int(done.stdout)
    return int((ROOT / "CHANGELOG.md").stat().st_mtime)


def _build(order: Order, out: Path) -> Path:
    work = ROOT / "build" / "package" / order.architecture
    shutil.rmtree(work, ignore_errors=True)
    place = work / "polywan"
    place.mkdir(parents=True)
    say(f"fetching the wheels of polywan {order.version} for {order.architecture}")
    stage(order, place)
    say("building the package")
    log = work / "build.log"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEB_BUILD_OPTIONS": "nocheck nostrip"}
    environment.pop("SOURCE_DATE_EPOCH", None)
    command = ["dpkg-buildpackage", "--build=binary", "-us", "-uc", "-d", f"--host-arch={order.architecture}"]
    with log.open("wb") as words:
        done = subprocess.run(command, cwd=place, env=environment, stdout=words, stderr=words, check=False)
    if done.returncode != 0:
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        raise BuildError(f"dpkg-buildpackage failed (see above, or {log})")
    name = f"polywan_{order.version}_{order.architecture}.deb"
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy2(work / name, out / name)
    say(f"built {name}, {(out / name).stat().st_size / 1e6:.1f} MB")
    return out / name
