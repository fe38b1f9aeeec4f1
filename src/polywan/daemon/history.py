"""The last configurations in force, on disk: `history.json` in the state directory."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from polywan import files
from polywan.core.errors import NewerError
from polywan.core.trial.history import HISTORY_MIGRATIONS, Entry, added, restored, stored
from polywan.core.versions import upgraded
from polywan.daemon.database import ASIDE
from polywan.daemon.tasks.recording import DISK_TIMEOUT

log = logging.getLogger("polywan")

HISTORY_FILE: Final = "history.json"

_COST: Final = "what was in force before is not listed"

_LARGEST: Final = 64 << 20
"""Bytes: JSON may escape each of the characters that are kept."""


class History:
    """The history of one state directory.

    Attributes:
        entries: newest first; the first one is in force.
        problem: why it is not on disk, for people; empty when it is.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / HISTORY_FILE
        self._newer = False
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.entries: tuple[Entry, ...] = ()
        self.problem = ""

    async def load(self) -> None:
        """Take in what the daemon before has kept; a disk that hangs is not waited for.

        Damage is set aside, and what a newer version has written stays.
        """
        await self._soon(self._load())

    async def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait({task}, timeout=DISK_TIMEOUT)

    async def _load(self) -> None:
        found = await asyncio.to_thread(self._read)
        for entry in reversed(self.entries):
            found = added(found, entry)
        self.entries = found

    async def add(self, entry: Entry) -> None:
        """Take in what is in force from now on, and have it written; a disk that hangs is not waited for."""
        found = added(self.entries, entry)
        if found == self.entries:
            return
        self.entries = found
        if not self._newer:
            await self._soon(self._write())

    def _read(self) -> tuple[Entry, ...]:
        try:
            with os.fdopen(files.open_own(self._path.parent, HISTORY_FILE), "rb") as file:
                value = json.loads(file.read(_LARGEST))
            return restored(upgraded(value, HISTORY_MIGRATIONS, str(self._path), _COST))
        except NewerError as error:
            self._newer, self.problem = True, str(error)
            log.warning("history.newer: %s", error)
            return ()
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            self._set_aside(error)
            return ()

    async def _write(self) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(self._save, self.entries)
                self.problem = ""
            except OSError as error:
                problem = f"{self._path} cannot be written: {(error.strerror or str(error)).lower()}"
                if problem != self.problem:
                    log.error("history.unwritable: %s; a restart loses what came since", problem)
                self.problem = problem

    def _save(self, entries: Sequence[Entry]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.exchange(self._path, json.dumps(stored(entries), indent=1).encode())

    def _set_aside(self, error: Exception) -> None:
        why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        aside = self._path.with_name(HISTORY_FILE + ASIDE)
        with suppress(OSError):
            self._path.replace(aside)
        log.warning(
            "history.aside: %s cannot be used (%s): it is now %s, and a new history begins", self._path, why, aside
        )
