"""Lay out what dpkg-buildpackage builds from: a copy of the checkout, the private tree, and what is generated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from deb import licences, wheels
from deb.errors import BuildError

COPIED: Final = (
    *("src", "packaging", "docs", "examples"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
)
"""What of the checkout is in the package, or needed to make it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built.

    Attributes:
        root: the checkout.
        architecture: Debian's name.
        version: Debian's version of the package.
        epoch: Unix time that every file and the changelog bear.
    """

    root: Path
    architecture: str
    version: str
    epoch: int


def stage(order: Order, place: Path) -> None:
    """Lay everything out below an empty `place`.

    Raises:
        BuildError: wheels or texts cannot be made.
    """
    for name in COPIED:
        _copy(order.root / name, place / name)
    shutil.move(place / "packaging" / "debian", place / "debian")
    _write_changelog(order, place / "debian" / "changelog")
    tree = place / "tree"
    _fill(order.architecture, wheels.PYTHONS, place, tree)
    with (place / "debian" / "copyright").open("a", encoding="utf-8") as file:
        file.write("\n" + licences.paragraphs(tree))
    # What describes a wheel stays for those who look for known faults of libraries; its list of files is not true here.
    for described in tree.glob("*.dist-info"):
        (described / "RECORD").unlink()
    running = _running(order.architecture, place, tree)
    _generate(order, running, place / "generated")
    for path in sorted(place.rglob("*"), reverse=True):
        os.utime(path, (order.epoch, order.epoch), follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info"))
    else:
        shutil.copy2(source, target)


def _fill(architecture: str, pythons: tuple[str, ...], place: Path, tree: Path) -> None:
    downloads = place.parent / f"wheels-{architecture}"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir()
    lock = place / "packaging" / "requirements.txt"
    wheels.unpack(wheels.fetch(lock, architecture, pythons, downloads), tree)
    wheels.require_compiled(tree, architecture, pythons)
    shutil.copytree(place / "src" / "polywan", tree / "polywan")


def _running(architecture: str, place: Path, tree: Path) -> Path:
    """Return a tree that runs on this machine: the one of the package, or one like it."""
    here = _architecture()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if architecture == here and python in wheels.PYTHONS:
        return tree
    native = place.parent / "native"
    shutil.rmtree(native, ignore_errors=True)
    _fill(here, (python,), place, native)
    return native


def _architecture() -> str:
    return output(["dpkg", "--print-architecture"])


def output(command: list[str]) -> str:
    """Return what a program prints, without the line's end.

    Raises:
        BuildError: it fails.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout.strip()


def _date(order: Order) -> datetime:
    return datetime.fromtimestamp(order.epoch, UTC)


def _write_changelog(order: Order, path: Path) -> None:
    date = format_datetime(_date(order))
    path.write_text(
        f"polywan ({order.version}) stable; urgency=medium\n\n"
        "  * Changes are in /usr/share/doc/polywan/CHANGELOG.md.\n\n"
        f" -- The polywan developers <polywan@localhost>  {date}\n",
        encoding="utf-8",
    )


def _generate(order: Order, tree: Path, into: Path) -> None:
    """Write what the program says of itself: manual pages, completion, schema."""
    into.mkdir()
    code = "import sys; sys.path[:0] = sys.argv[1:3]; from deb.generate import main; main(*sys.argv[3:])"
    places = [str(tree), str(order.root / "scripts"), str(into), f"{_date(order):%Y-%m-%d}"]
    if subprocess.run([sys.executable, "-ISB", "-c", code, *places], check=False).returncode != 0:
        raise BuildError("the manual pages could not be written (see above)")
