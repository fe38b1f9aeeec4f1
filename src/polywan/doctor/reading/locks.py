"""Look for the lock files that scripts wait for, and for who holds them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from polywan.doctor.facts.locks import Lock, LockName, lock_names

MOST_LOCKS: Final = 64
_LONGEST_PID: Final = 32


def read(scripts: Mapping[str, str], root: Path = Path("/"), proc: Path = Path("/proc")) -> tuple[Lock, ...]:
    """Return the lock files that are there.

    Args:
        scripts: text by path.
        root: where the files are.
        proc: of the processes.
    """
    there = [(path, name) for name in lock_names(scripts) for path in islice(_named(root, name), MOST_LOCKS)]
    if not there:
        return ()
    opened, running = _processes(proc)
    now, since = time.time(), _started(proc)
    found = []
    for path, name in there[:MOST_LOCKS]:
        with suppress(OSError):
            made = path.stat(follow_symlinks=False).st_mtime
            held = path.resolve() in opened or _names_process(path, proc) or any(_runs(m, running) for m in name.makers)
            shown = f"/{path.relative_to(root)}"
            found.append(
                Lock(shown, name, max(0.0, now - made), before_boot=made < since, folder=path.is_dir(), held=held)
            )
    return tuple(found)


def _named(root: Path, name: LockName) -> Iterator[Path]:
    with suppress(OSError, ValueError, NotImplementedError):
        yield from sorted(root.glob(name.pattern.lstrip("/")))


def _processes(proc: Path) -> tuple[frozenset[Path], tuple[str, ...]]:
    """Return the files that processes have open, and their command lines."""
    opened: set[Path] = set()
    running: list[str] = []
    for process in proc.glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):
            running.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    opened.add(Path(os.readlink(descriptor)))
    return frozenset(opened), tuple(running)


def _runs(script: str, running: tuple[str, ...]) -> bool:
    return any(script in command.split() for command in running)


def _names_process(path: Path, proc: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        text = file.read(_LONGEST_PID).strip()
    return text.isdigit() and (proc / text.decode()).exists()


def _started(proc: Path) -> float:
    """Return when the system started, in Unix seconds; 0 when that is not known."""
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "stat").read_text("ascii", "replace").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0
