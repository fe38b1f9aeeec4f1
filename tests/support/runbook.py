"""The runbook as values: its sections, their commands, and what these are said to print; and how they are typed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs/runbook.md"

SHELL, MACHINE = "sh", "sh systemd"
"""How blocks of commands are marked: for any box, and for one whose service manager is systemd."""

_FENCED: Final = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_EVENT: Final = re.compile(r"`([a-z_.]+)` \(([a-z, ]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: commands, or what the commands before it print."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with all up to the next one, whatever its level.

    Attributes:
        title: the heading.
        text: what is below it.
        blocks: its fenced blocks in their order.
    """

    title: str
    text: str
    blocks: tuple[Block, ...]

    @property
    def events(self) -> dict[str, tuple[str, ...]]:
        """The log events that it explains, with their levels."""
        return {name: tuple(levels.split(", ")) for name, levels in _EVENT.findall(self.title)}

    def of(self, kind: str) -> list[str]:
        """Return the blocks of a kind."""
        return [block.text for block in self.blocks if block.kind == kind]

    def examples(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each block of commands for any box, with the lines that it is said to print."""
        for number, block in enumerate(self.blocks):
            if block.kind == SHELL:
                after = self.blocks[number + 1 : number + 2]
                yield block.text, [line for b in after if b.kind == "" for line in b.text.splitlines()]


def sections(text: str) -> list[Section]:
    """Return the sections of a document."""
    _, *parts = re.split(r"^#{2,4} (.+)$", text, flags=re.MULTILINE)
    return [
        Section(title, body.strip(), tuple(Block(kind.strip(), lines) for kind, lines in _FENCED.findall(body)))
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    ]


def runbook() -> list[Section]:
    """Return the sections of the runbook."""
    return sections(RUNBOOK.read_text(encoding="utf-8"))


_VALUE: Final = re.compile(
    r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|\d(?:[\d.:,]*\d)?(?: (?:ms|s|min|h|d)(?: \d+ (?:s|min|h))?)?(?![0-9a-z])"
)
"""What differs each time: numbers, durations, hardware addresses."""


def _pattern(line: str) -> re.Pattern[str]:
    """Return what a line of an example stands for: other values, columns of any width, and anything for `…`."""
    words = _VALUE.sub("0", line).split()
    return re.compile(r"\s+".join(map(re.escape, words)).replace("…", ".*"))


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a block, each with the lines that it reads."""
    lines = iter(block.splitlines())
    for line in lines:
        command, end = [line], line.rpartition("<<")[2].strip("'\"") if "<<" in line else None
        while end is not None and command[-1] != end:
            command.append(next(lines))
        yield "".join(f"{one}\n" for one in command)


def missing(example: list[str], printed: str) -> list[str]:
    """Return the lines of an example that were not printed."""
    text = _VALUE.sub("0", printed)
    return [line for line in example if line.strip() and not _pattern(line).search(text)]


_COVER: Final = """\
set -eu
mount --make-rprivate /
mkdir -p {home}/covers
mount -t tmpfs tmpfs {home}/covers
for folder in etc var/lib; do
    mkdir -p {home}/covers/$folder/upper {home}/covers/$folder/work
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir={home}/covers/$folder/upper,\
workdir={home}/covers/$folder/work" "/$folder"
done
mkdir -p /etc/polywan /var/lib/polywan /run/polywan
mount --rbind {config} /etc/polywan
mount --rbind {runtime} /run/polywan
mount --rbind {state} /var/lib/polywan
touch {home}/covered
cd /
exec sh -u {home}/typed
"""
"""Puts a daemon's directories where a box has them, for what is run in it only."""

_STAND_INS: Final = {
    "polywan": f'exec {sys.executable} -m polywan "$@"\n',
}


def type_in(place: Namespace, daemon: DaemonProcess, commands: str) -> subprocess.CompletedProcess[str]:
    """Type commands as they stand in a namespace, beside a daemon whose directories are where a box has them."""
    home = daemon.runtime / "typing"
    stand_ins = home / "bin"
    stand_ins.mkdir(parents=True, exist_ok=True)
    for name, text in _STAND_INS.items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
        (stand_ins / name).chmod(0o755)
    (home / "typed").write_text(commands, encoding="utf-8")
    script = _COVER.format(home=home, config=daemon.config.parent, runtime=daemon.runtime, state=daemon.state)
    path = f"PATH={stand_ins}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    (home / "covered").unlink(missing_ok=True)
    done = place.run(["env", "--unset=COLUMNS", path, "unshare", "--mount", "sh", "-c", script], check=False)
    if not (home / "covered").exists():
        pytest.skip(f"folders cannot be covered here: {done.stderr}")
    return done
