"""Keep the daemon's memory on disk, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from polywan.core.compile import Memory
from polywan.core.net import Family

FILE = "memory.json"


def load(state_dir: Path) -> tuple[Memory, str]:
    """Return what was remembered, and a warning when the file could not be understood (then: nothing)."""
    path = state_dir / FILE
    try:
        raw = json.loads(path.read_text("utf-8"))
        return _decode(raw), ""
    except FileNotFoundError:
        return Memory(), ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return Memory(), f"{path} is unreadable and was ignored ({error}); marks may be given anew"


def save(state_dir: Path, memory: Memory) -> None:
    """Write the memory and force it to disk before returning; a crash leaves the old file or the new one.

    Raises:
        OSError: the directory cannot be written.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=state_dir, prefix=f".{FILE}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(_encode(memory), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(state_dir / FILE)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def forget(state_dir: Path) -> None:
    """Remove the file: nothing of ours is left in the kernel."""
    (state_dir / FILE).unlink(missing_ok=True)


def _encode(memory: Memory) -> dict[str, Any]:
    return {
        "ids": dict(memory.ids),
        "gateways": [[name, int(family), str(via)] for (name, family), via in memory.gateways.items()],
        "originals": dict(memory.originals),
    }


def _decode(raw: Any) -> Memory:
    return Memory(
        ids={str(n): int(i) for n, i in raw["ids"].items()},
        gateways={(str(n), Family(f)): ip_address(v) for n, f, v in raw["gateways"]},
        originals={str(p): str(v) for p, v in raw["originals"].items()},
    )
