"""Answer what the configuration's files say now, beside what is in force, and what a reload would change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from polywan.api.requests import Nothing, ProblemFound
from polywan.api.running import Planned
from polywan.api.views.pending import PendingConfiguration
from polywan.config import load_texts, names_below, paths_beside, readable_texts
from polywan.core.errors import ConfigError, Problem
from polywan.core.state.mask import settled
from polywan.core.status.config_changes import changes
from polywan.core.status.rehearsal import of_held, planned
from polywan.core.trial.texts import different
from polywan.daemon.api import plan as planning
from polywan.daemon.loop import Daemon
from polywan.daemon.reloading import Reloader
from polywan.kernel.api import Kernel

SCHEMA: Final = 1
"""Version of the document's shape; fields are added, never changed."""


class Pending:
    """Compares files with what is in force; one question at a time, since each reads files and the kernel.

    Args:
        daemon: what is known.
        kernel: read for a plan.
        reloader: knows the files, and what is in force.
    """

    def __init__(self, daemon: Daemon, kernel: Kernel, reloader: Reloader) -> None:
        self._daemon = daemon
        self._kernel = kernel
        self._reloader = reloader
        self._one_at_a_time = asyncio.Lock()

    async def pending(self, _: Nothing) -> PendingConfiguration:
        """Return what the files say now, and what a reload would change.

        Raises:
            KernelError: the kernel cannot be read.
        """
        async with self._one_at_a_time:
            return await self._compared()

    async def _compared(self) -> PendingConfiguration:
        file = self._reloader.file
        found, problems = await asyncio.to_thread(readable_texts, file)
        in_force, on_disk = dict(self._reloader.texts), names_below(file, found)
        files = different(in_force, on_disk)
        differences: tuple[str, ...] = ()
        plan = Planned(ops=(), warnings=())
        if files and not problems:
            try:
                differences, plan = await self._planned(paths_beside(file, on_disk))
            except ConfigError as error:
                problems = [*error.problems]
        return PendingConfiguration(
            schema=SCHEMA,
            differs=bool(files or problems),
            files=files,
            in_force=in_force,
            on_disk=on_disk,
            problems=tuple(map(_shown, problems)),
            changes=differences,
            operations=plan.ops,
            warnings=plan.warnings,
        )

    async def _planned(self, texts: Mapping[str, str]) -> tuple[tuple[str, ...], Planned]:
        """Return what a configuration says anew, and what it would change.

        Raises:
            ConfigError: it is bad.
        """
        loaded, before = await asyncio.to_thread(load_texts, texts), self._daemon.state
        found, after = await planning.rehearsed(self._daemon, self._kernel, loaded.config)
        differences: tuple[str, ...] = ()
        if before.known.config is not None:
            # The mask that is in force stays, where the file names none.
            differences = changes(before.known.config.file, settled(loaded.config, before.known.memory))
        return differences, planned(found, after.decision.warnings, of_held(before.decision.held, after.decision.held))


def _shown(problem: Problem) -> ProblemFound:
    return ProblemFound(where=problem.where, key=problem.key, message=problem.message, hint=problem.hint)
