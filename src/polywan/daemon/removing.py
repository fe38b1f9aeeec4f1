"""Leave the kernel as found, and know what that was."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from polywan.api.running import Removed
from polywan.core.errors import KernelError, NewerError, PolywanError
from polywan.core.plan.plan import ActualState, removal
from polywan.core.routing.sysctls import Sysctl, usual
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.core.state.memory import Memory
from polywan.core.words import counted
from polywan.daemon import store
from polywan.kernel.api import Kernel

log = logging.getLogger("polywan")


def recalled(kernel: Kernel, state_dir: Path) -> Memory:
    """Return what a daemon that starts here remembers; it knows whether what settings were before is lost.

    Raises:
        NewerError: a newer polywan has written it.
    """
    memory, warning = store.load(state_dir)
    unsure = store.found(state_dir) and store.lost(state_dir)
    if not store.found(state_dir) and _ours(kernel):
        unsure = True
        warning = f"{state_dir / store.FILE} is gone, but the kernel has rules of polywan; {store.LOST}"
    if warning:
        log.warning("state.unreadable: %s", warning)
    return replace(memory, unsure=unsure)


def remove(kernel: Kernel, state_dir: Path, known: Memory | None = None) -> Removed:
    """Leave the kernel as found: everything stamped as ours is removed, settings get their old values back.

    Args:
        kernel: of this machine.
        state_dir: where the memory is.
        known: what a running daemon remembers; without one the file tells.

    Raises:
        KernelError: the kernel cannot be read.
    """
    memory, lost, kept = (known, known.unsure, "") if known is not None else _from_file(state_dir)
    sysctls = [Sysctl(path, value) for path, value in memory.originals.items()]
    actual = kernel.read([s.path for s in sysctls], frozenset())
    unrestored = _unrestored(kernel, actual, memory) if lost else []
    plan = removal(actual, sysctls)
    problems = _let_go(kernel)
    report = kernel.apply(plan)
    if kept:
        problems.append(kept)
    elif not report.failures:
        problems += _forget(state_dir)
    log.info("down.done: %d of %s carried out", report.done, counted(len(plan.ops), "operation"))
    if unrestored:
        log.warning("down.unrestored: left as they are, as their old values are unknown: %s", ", ".join(unrestored))
    failed = tuple(f.message for f in report.failures)
    return Removed(removed=report.done, failed=failed, unrestored=tuple(unrestored), problems=tuple(problems))


def _from_file(state_dir: Path) -> tuple[Memory, bool, str]:
    """Return what the file says, whether old values of settings are lost, and why the file stays; empty if it goes."""
    try:
        memory, warning = store.load(state_dir)
    except NewerError as error:
        return Memory(), True, str(error)
    if warning:
        log.warning("state.unreadable: %s", warning)
    return memory, store.lost(state_dir), ""


def _let_go(kernel: Kernel) -> list[str]:
    problems = []
    for name in (FAST_TABLE, KEEP_TABLE):
        try:
            kernel.hold(name, None)
        except PolywanError as error:
            problems.append(f"the table {name} cannot be removed: {error}; it disappears when the daemon ends")
            log.error("down.failed: %s", problems[-1])
    return problems


def _forget(state_dir: Path) -> list[str]:
    try:
        store.forget(state_dir)
    except OSError as error:
        problem = (
            f"{state_dir / store.FILE} cannot be removed: {(error.strerror or str(error)).lower()}; remove it yourself"
        )
        log.error("down.failed: %s", problem)
        return [problem]
    return []


def _ours(kernel: Kernel) -> bool:
    try:
        return _any_of_ours(kernel.read([], frozenset()))
    except KernelError:
        # Whoever reads next says so.
        return False


def _any_of_ours(actual: ActualState) -> bool:
    shaped = actual.queues is not None and actual.queues.ours
    return bool(actual.nft or actual.routes or actual.rules or shaped)


def _unrestored(kernel: Kernel, actual: ActualState, memory: Memory) -> list[str]:
    """Return the settings that look like ours, if anything of ours is there: nobody knows what they were before."""
    if not _any_of_ours(actual):
        return []
    devices = sorted({route.link for route in actual.routes if route.link is not None})
    wanted = tuple(s for s in usual(devices) if s.path not in memory.originals)
    found = kernel.read([s.path for s in wanted]).sysctls
    return [f"{s.path.replace('/', '.')} = {s.value}" for s in wanted if found.get(s.path) == s.value]
