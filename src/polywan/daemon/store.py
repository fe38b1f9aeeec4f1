"""Keep the daemon's memory on disk, whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from polywan.core.admin import Order, Verb
from polywan.core.compile import Memory
from polywan.core.net import Family
from polywan.core.outages import History, Outage

FILE = "memory.json"
LOST: Final = (
    "marks may be given anew, and what kernel settings were before polywan is lost: `down` cannot restore them"
)
_LATEST: Final = 253_402_300_799.0  # the end of the year 9999


def load(state_dir: Path) -> tuple[Memory, str]:
    """Return what was remembered, and a warning when the file could not be understood (then: nothing)."""
    path = state_dir / FILE
    try:
        raw = json.loads(path.read_text("utf-8"))
        return _decode(raw), ""
    except FileNotFoundError:
        return Memory(), ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        told = error.strerror.lower() if isinstance(error, OSError) and error.strerror else error
        return Memory(), f"{path} is unreadable and was ignored ({told}); {LOST}"


def lost(state_dir: Path) -> bool:
    """True when there is no file that could tell what kernel settings were before."""
    return not (state_dir / FILE).exists() or bool(load(state_dir)[1])


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
        "mask": memory.mask,
        "ids": dict(memory.ids),
        "devices": dict(memory.devices),
        "gateways": [[name, int(family), str(via)] for (name, family), via in memory.gateways.items()],
        "originals": dict(memory.originals),
        "orders": {
            name: {"verb": order.verb, "since": order.since, "until": order.until, "empty": order.empty}
            for name, order in memory.orders.items()
        },
        "leaving": [[name, int(family), since] for (name, family), since in memory.leaving.items()],
        "outages": {name: asdict(history) for name, history in memory.outages.items()},
    }


def _decode(raw: Any) -> Memory:
    return Memory(
        mask=_mask(raw.get("mask")),
        ids={str(n): int(i) for n, i in raw["ids"].items()},
        gateways={(str(n), Family(f)): ip_address(v) for n, f, v in raw["gateways"]},
        originals={str(p): str(v) for p, v in raw["originals"].items()},
        # Files of older versions have none of these.
        devices={str(n): str(d) for n, d in raw.get("devices", {}).items()},
        orders={str(n): _order(o) for n, o in raw.get("orders", {}).items()},
        leaving={(str(n), Family(f)): _seconds(since) for n, f, since in raw.get("leaving", [])},
        outages={str(n): _history(h) for n, h in raw.get("outages", {}).items()},
    )


def _history(raw: Any) -> History:
    last = (
        Outage(
            began=_seconds(o["began"]),
            lasted=None if o["lasted"] is None else _seconds(o["lasted"]),
            reason=str(o["reason"]),
        )
        for o in raw["last"]
    )
    return History(day=int(raw["day"]), count=int(raw["count"]), last=tuple(last))


def _mask(raw: Any) -> int | None:
    if raw is None:
        return None
    if not 0 < int(raw) <= 0xFFFF_FFFF:
        raise ValueError("a mark has 32 bits")
    return int(raw)


def _order(raw: Any) -> Order:
    verb, until = Verb(raw["verb"]), raw["until"]
    if verb is Verb.ENABLE:
        raise ValueError("an order cannot be to enable")
    if verb is Verb.DRAIN:
        return Order(verb=verb, since=_seconds(raw["since"]), until=_seconds(until), empty=bool(raw["empty"]))
    return Order(verb=verb, since=_seconds(raw["since"]))


def _seconds(raw: Any) -> float:
    value = float(raw)
    # What no calendar has could not be shown either.
    if not 0 <= value <= _LATEST:
        raise ValueError(f"no time: {value}")
    return value
