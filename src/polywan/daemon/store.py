"""Keep the daemon's memory on disk, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from polywan import files
from polywan.core.state.memory import Memory
from polywan.core.state.remembered import MEMORY_MIGRATIONS, remembered
from polywan.core.versions import VERSION_KEY, upgraded

FILE = "memory.json"
LARGEST_MEMORY: Final = 4 << 20
"""Bytes; that of 254 uplinks with all their outages has 300 kB."""

_MARKS: Final = "marks may change"
_SETTINGS: Final = "the old values of kernel settings are lost: `down` cannot restore them"
LOST: Final = f"{_MARKS}, and {_SETTINGS}"
_COSTS: Final = {
    "mask": _MARKS,
    "ids": _MARKS,
    "devices": _MARKS,
    "originals": _SETTINGS,
    "unsure": _SETTINGS,
    "orders": "operator commands may be lost",
}
"""What it means to people that a part of the file makes no sense."""


def load(state_dir: Path) -> tuple[Memory, str]:
    """Return what was remembered, and a warning when not all of it could be understood or believed.

    Raises:
        NewerError: a newer polywan has written the file.
    """
    memory, warning, _ = _load(state_dir)
    return memory, warning


def lost(state_dir: Path) -> bool:
    """True when what kernel settings were before is not known, or not of all of them; errors as `load`."""
    memory, _, sure = _load(state_dir)
    return memory.unsure or not sure


def found(state_dir: Path) -> bool:
    """True when there is something in the file's place, good or bad."""
    return os.path.lexists(state_dir / FILE)


def _load(state_dir: Path) -> tuple[Memory, str, bool]:
    """Return what was remembered, a warning, and whether the file knows what settings were before."""
    path = state_dir / FILE
    try:
        document = upgraded(json.loads(_content(state_dir)), MEMORY_MIGRATIONS, str(path), LOST)
        memory, senseless = remembered(document)
    except FileNotFoundError:
        return Memory(), "", False
    except RecursionError:
        return Memory(), _ignored(path, "brackets are nested too deeply"), False
    except (OSError, ValueError) as error:
        text = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        return Memory(), _ignored(path, text), False
    if not senseless:
        return memory, "", True
    costs = dict.fromkeys(_COSTS[key] for key in senseless if key in _COSTS)
    text = f"{path}: ignored invalid values in {', '.join(senseless)}"
    return memory, "; ".join((text, *costs)), not {"originals", "unsure"}.intersection(senseless)


def _ignored(path: Path, why: str) -> str:
    return f"{path} is unreadable and was ignored ({why}); {LOST}"


def _content(state_dir: Path) -> bytes:
    with os.fdopen(files.open_own(state_dir, FILE), "rb") as file:
        content = file.read(LARGEST_MEMORY + 1)
    if len(content) > LARGEST_MEMORY:
        raise ValueError(f"larger than {LARGEST_MEMORY >> 20} MiB")
    return content


def save(state_dir: Path, memory: Memory) -> None:
    """Write the memory and force it to disk before returning; a crash leaves the old file or the new one.

    Raises:
        OSError: the directory cannot be written.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.exchange(state_dir / FILE, json.dumps(_encode(memory), indent=1).encode())


def forget(state_dir: Path) -> None:
    """Remove the file: nothing of ours is left in the kernel."""
    (state_dir / FILE).unlink(missing_ok=True)


def _encode(memory: Memory) -> dict[str, Any]:
    return {
        VERSION_KEY: len(MEMORY_MIGRATIONS),
        "mask": memory.mask,
        "ids": dict(memory.ids),
        "devices": dict(memory.devices),
        "gateways": [[name, int(family), str(via)] for (name, family), via in memory.gateways.items()],
        "originals": dict(memory.originals),
        "orders": {
            name: {"verb": order.verb, "since": order.since, "until": order.until, "empty": order.empty}
            for name, order in memory.orders.items()
        },
        "leaving": [[name, int(family), since] for (name, family), since in memory.drains.items()],
        "outages": {name: asdict(history) for name, history in memory.outages.items()},
        "unsure": memory.unsure,
    }
