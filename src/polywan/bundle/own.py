"""Parts that polywan itself knows: its files, what the daemon says, and what doctor finds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from polywan import files
from polywan.api.codec import encode
from polywan.bundle.part import Part
from polywan.config import Config, load, load_texts, load_with_warnings, readable_texts
from polywan.core.errors import ConfigError, PolywanError
from polywan.daemon import offline, store
from polywan.doctor.checks import CHECKS
from polywan.doctor.examine import examine
from polywan.doctor.reading import polywan as own
from polywan.doctor.reading.collect import Places, read_box

MOST_EVENTS: Final = 500
_DOCTOR_LIMIT: Final = 12.0
"""Seconds; it reads twice, for 5 s at most."""


def parts(places: Places) -> tuple[Part, ...]:
    """Return the parts, in the order in which people read them."""
    return (
        Part("check.txt", "what is wrong with the configuration", lambda: check(places.config)),
        Part("status.json", "polywan status --json", lambda: _status(places)),
        Part("plan.txt", "polywan plan: what would change in the kernel", lambda: _plan(places)),
        Part("events.json", f"the last {MOST_EVENTS} entries of the journal", lambda: _events(places)),
        Part("doctor.json", "polywan doctor --json", lambda: _doctor(places), _DOCTOR_LIMIT),
        Part("recording.json", "the machine, for polywan plan --observed", lambda: _recording(places.config)),
        Part("memory.json", "what the daemon remembers over restarts", lambda: _memory(places.state_dir)),
    )


def configuration(path: Path) -> dict[str, str]:
    """Return the texts of the configuration by fixed names, and the true names in `config/files.txt`."""
    texts, _ = readable_texts(path)
    names = dict(_names(path, texts))
    true = "".join(f"{name}  {file}\n" for file, name in names.items())
    return {"config/files.txt": true, **{names[file]: text for file, text in texts.items()}} if texts else {}


def _names(path: Path, texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    number = 0
    for file in texts:
        if file == str(path):
            yield file, "config/polywan.toml"
        else:
            number += 1
            yield file, f"config/conf.d/{number:03}.toml"


def check(path: Path) -> str:
    """Return every problem of the configuration, or that it is good, with its warnings."""
    texts, problems = readable_texts(path)
    try:
        loaded = load_texts(texts) if texts and not problems else load_with_warnings(path)
    except ConfigError as error:
        return f"{error}\n"
    return "".join(f"warning: {warning}\n" for warning in loaded.warnings) + "the configuration is good\n"


def _status(places: Places) -> str:
    found = own.status(places.runtime_dir)
    if found is None:
        raise PolywanError("no daemon runs in this network namespace")
    return _json(encode(found))


def _plan(places: Places) -> str:
    done = offline.planned_here(_good(places.config), places.config, places.runtime_dir, places.state_dir)
    lines = [*(f"warning: {warning}" for warning in done.warnings), *(op.text for op in done.ops)]
    return "".join(f"{line}\n" for line in (lines if done.ops else (*lines, "nothing to change")))


def _events(places: Places) -> str:
    return _json([encode(event) for event in own.last_events(places.runtime_dir, places.state_dir, MOST_EVENTS)])


def _doctor(places: Places) -> str:
    began = time.monotonic()
    box = asyncio.run(read_box(places))
    return _json(encode(examine(box, CHECKS, time.monotonic() - began)))


def _recording(path: Path) -> str:
    return offline.recorded(_good(path), trials=False).decode() + "\n"


def _good(path: Path) -> Config:
    try:
        return load(path)
    except ConfigError as error:
        raise PolywanError("the configuration is not good: check.txt says why") from error


def _memory(state_dir: Path) -> str:
    return files.content(state_dir / store.FILE, store.LARGEST_MEMORY).decode("utf-8", "replace")


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
