"""Lock files that scripts wait for, and which script makes them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from polywan.doctor.facts.scripts import Line, lines

_PATH: Final = r"[\"']?(/(?:var/lock|run/lock|run|var/run|tmp|var/tmp)/[\w.${}/-]{1,120})[\"']?"
_WAITS: Final = re.compile(r"(?:\[\[?|\btest)\s+(?:!\s+)?-[efd]\s+" + _PATH)
_MAKES: Final = re.compile(r"(?:\btouch\s+|\bmkdir\s+|>\s*)" + _PATH)
_REMOVES: Final = re.compile(r"\b(?:rm|rmdir)\s+(?:-\S+\s+)*" + _PATH)
_LOOP: Final = re.compile(r"\b(?:while|until)\b")
_LOCKFILE: Final = re.compile(r"\blockfile\s+(?:-\S+\s+(?:\d+\s+)?)*" + _PATH)
_ASSIGNED: Final = re.compile(r"^\s*(\w+)=" + _PATH + r"\s*;?\s*$")
_VARIABLE: Final = re.compile(r"\$\{?\w+\}?")


class LockName(NamedTuple):
    """A lock file by name.

    Attributes:
        pattern: its path; ``*`` stands for what the script fills in, such as a device.
        where: the line that waits for it.
        makers: the scripts that make it.
    """

    pattern: str
    where: Line
    makers: tuple[str, ...]


class Lock(NamedTuple):
    """A lock file that is there.

    Attributes:
        age: seconds since it was made.
        before_boot: it was made before the system started.
        folder: it is a directory: mkdir(1) fails when there is one.
        held: a process has it open, it names a process that runs, or a script that makes it runs.
    """

    path: str
    name: LockName
    age: float
    before_boot: bool
    folder: bool
    held: bool


def lock_names(scripts: Mapping[str, str]) -> Iterator[LockName]:
    """Yield files at which some script waits or gives up, and that one script both makes and removes.

    A file that one script makes and another one removes is a note of what is up, not a lock; flock(1) needs no file to
    be gone.
    """
    waited: dict[str, Line] = {}
    made: dict[str, list[str]] = {}
    for path, text in scripts.items():
        if "flock" in text:
            continue
        commands = list(_with_variables(lines({path: text})))
        removed = {_pattern(name) for line in commands for name in _REMOVES.findall(line.text)}
        for number, line in enumerate(commands):
            behind = " ".join(each.text for each in commands[number : number + 3])
            names = _WAITS.findall(line.text) if _LOOP.search(line.text) or "exit" in behind else []
            atomic = _LOCKFILE.findall(line.text)
            for name in (*names, *atomic):
                waited.setdefault(_pattern(name), line)
            for pattern in map(_pattern, (*_MAKES.findall(line.text), *atomic)):
                if pattern in removed:
                    made.setdefault(pattern, []).append(path)
    for pattern, line in waited.items():
        if pattern in made and _is_narrow(pattern):
            yield LockName(pattern, line, tuple(dict.fromkeys(made[pattern])))


def _is_narrow(pattern: str) -> bool:
    """Tell whether the pattern stands for this script's files only; a file with a process's number is no lock."""
    folder, _, name = pattern.rpartition("/")
    return "*" not in folder and len(name.partition("*")[0]) > 1 and not name.endswith(".pid")


def _with_variables(commands: Collection[Line] | Iterator[Line]) -> Iterator[Line]:
    """Put in paths that were given a name before: ``LOCK=/run/lock/x``, ``[ -e $LOCK ]``."""
    known: dict[str, str] = {}
    for line in commands:
        text = line.text
        for name, value in known.items():
            text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
        if (assigned := _ASSIGNED.match(text)) is not None:
            known[assigned[1]] = assigned[2]
        yield line._replace(text=text)


def _pattern(name: str) -> str:
    return _VARIABLE.sub("*", name)
