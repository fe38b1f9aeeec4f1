"""Answer `polywan plan` beside a running daemon: what a configuration would change, with all that the daemon knows."""

from __future__ import annotations

import asyncio

from polywan.api.requests import WhatToPlan
from polywan.api.running import Planned
from polywan.config import Config, load_texts
from polywan.core.engine import step as engine
from polywan.core.errors import CapacityError, ConfigError, ControlError, Problem
from polywan.core.evolve import replace
from polywan.core.plan.plan import Plan
from polywan.core.resolved import resolve
from polywan.core.state.events import ReadDone
from polywan.core.state.state import State
from polywan.core.status.rehearsal import of_held, planned, rehearse
from polywan.core.world.lookups import wanted
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import look_once
from polywan.daemon.loop import Daemon
from polywan.kernel.api import Kernel
from polywan.presence import namespace


async def plan(daemon: Daemon, kernel: Kernel, asked: WhatToPlan) -> Planned:
    """Return the operations that a configuration would lead to now, and warnings.

    Args:
        daemon: what is known.
        kernel: read for this.
        asked: the texts of its files by name, in order, and the network namespace that is meant, if any.

    Raises:
        ControlError: another network namespace is meant (409), or there are no files (400).
        ConfigError: the configuration is bad.
        KernelError: the kernel cannot be read.
    """
    if asked.namespace not in ("", namespace()):
        raise ControlError("this daemon runs in another network namespace", 409)
    if not asked.files:
        raise ControlError("expected the texts of files, by name", 400)
    config = (await asyncio.to_thread(load_texts, asked.files)).config
    before = daemon.state
    found, after = await rehearsed(daemon, kernel, config)
    return planned(found, after.decision.warnings, of_held(before.decision.held, after.decision.held))


async def rehearsed(daemon: Daemon, kernel: Kernel, config: Config) -> tuple[Plan, State]:
    """Return the plan that a configuration would lead to now, and the state after it.

    Raises:
        ConfigError: it needs more marks than there are.
        KernelError: the kernel cannot be read.
    """
    before = daemon.state
    if before.known.config is not None and wanted(config) == wanted(before.known.config.file):
        lookups = before.known.lookups
    else:
        lookups = await look_once(config, SystemResolver())
    observed = await asyncio.to_thread(kernel.observe)
    try:
        resolved = resolve(config, before.known.memory.ids)
        meant = replace(daemon.state, known=replace(daemon.state.known, config=resolved))
        paths, kinds = engine.sysctl_paths(meant, observed), engine.queue_kinds(meant)
        read = ReadDone(observed, await asyncio.to_thread(kernel.read, paths, kinds))
        return rehearse(daemon.state, config, lookups, read, asyncio.get_running_loop().time())
    except CapacityError as error:
        raise ConfigError([Problem("config", "global.mark_mask", str(error))]) from error
