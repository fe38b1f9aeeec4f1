"""Read a whole machine: everything at once, each thing within its time, and what cannot be read is said."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from polywan.core.net import FAMILIES
from polywan.core.plan.lans import lans
from polywan.core.world.observed import Observed
from polywan.doctor.box import Box
from polywan.doctor.checks import CHECKS
from polywan.doctor.facts.egress import egresses
from polywan.doctor.reading import files, line, locks, machine, network, scripts
from polywan.doctor.reading import firewall as filters
from polywan.doctor.reading import polywan as own
from polywan.doctor.reading.at_once import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where polywan keeps its files; `root` is where those of the system are looked for.

    Attributes:
        runtime_dir: None for that of the daemon of this network namespace.
    """

    config: Path
    state_dir: Path
    runtime_dir: Path | None = None
    root: Path = Path("/")


async def read_box(places: Places) -> Box:
    """Return the machine; nothing is changed, and what cannot be read is in `unread`."""
    reading = Reading()
    await reading.read(
        {
            "observed": network.observed,
            "routes": network.routes,
            "file": lambda: own.file(places.config),
            "status": lambda: own.status(places.runtime_dir),
            "counters": network.counters,
            "half_open": network.half_open,
            "firewall": filters.read,
            "scripts": lambda: scripts.read(places.root),
            "programs": lambda: files.programs(places.root),
            "machine": lambda: machine.read(places),
            "events": lambda: tuple(own.events(places.runtime_dir, places.state_dir)),
            "in_force": lambda: own.in_force(places.runtime_dir),
        }
    )
    file = reading.found.pop("file", own.File())
    firewall, unreadable = reading.found.pop("firewall", (None, ()))
    if firewall is not None:
        reading.found["firewall"] = firewall
    if unreadable:
        reading.unread["firewall"] = "; ".join(unreadable)
    box = _completed(Box(**reading.found, config=file.config, config_faults=file.faults), places)
    later = Reading(threads=reading.threads, unread=reading.unread)
    await later.read(
        {
            "settings": lambda: network.settings(box.observed),
            "answers": lambda: network.answers(chain.from_iterable(check.asks(box) for check in CHECKS)),
            "locks": lambda: locks.read(box.scripts, places.root),
            "line": line.ask(box, places.root),
            "warnings": lambda: own.warnings(file.config, places.state_dir, box.status),
            # A running daemon has found out already.
            "lacking": lambda: own.lacking(file.config) if file.config and box.status is None else (),
        }
    )
    if "line" in later.found:
        later.unread.update(line.unread(later.found["line"]))
    return replace(box, **later.found, unread=later.unread)


def _completed(box: Box, places: Places) -> Box:
    """Add what follows from the rest."""
    seen: Observed = box.observed
    known = egresses(seen, box.config, box.status)
    devices = {egress.device for egress in known}
    if box.config is not None:
        devices |= {uplink.interface for uplink in box.config.uplinks.values()}
    behind = chain.from_iterable(lans(seen, devices, family, tunnels=True) for family in FAMILIES)
    return replace(box, egresses=known, lans=tuple(behind), config_path=str(places.config), now=time.time())
