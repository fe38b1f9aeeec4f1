"""Hand the engine what each quota's device has counted, and keep the use of quotas on disk: `quota.json`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from polywan import files
from polywan.core.errors import NewerError
from polywan.core.quota.counting import Seen
from polywan.core.quota.ledger import configured, save_due
from polywan.core.quota.limits import Quotas
from polywan.core.quota.stored import QUOTA_MIGRATIONS, restored, stored
from polywan.core.quota.usage import Usage
from polywan.core.state.events import BytesCounted, QuotaEntered
from polywan.core.status.rates import CADENCE, Sample
from polywan.core.versions import upgraded
from polywan.daemon import clock
from polywan.daemon.database import ASIDE
from polywan.daemon.loop import Daemon
from polywan.kernel import counters

log = logging.getLogger("polywan")

QUOTA_FILE: Final = "quota.json"

LARGEST_QUOTAS: Final = 1 << 20
"""Bytes; that of 256 uplinks has 200 kB."""

_LOST: Final = "what was used of quotas is not known"

_LAST_WRITE: Final = 5.0
"""Seconds that the end of the daemon waits for the disk."""


def load_usages(state_dir: Path) -> dict[str, Usage]:
    """Return the use of quotas that was kept.

    Raises:
        NewerError: a newer polywan has written the file.
        OSError: it cannot be read; FileNotFoundError where there is none.
        ValueError: it makes no sense.
    """
    with os.fdopen(files.open_own(state_dir, QUOTA_FILE), "rb") as file:
        content = file.read(LARGEST_QUOTAS + 1)
    if len(content) > LARGEST_QUOTAS:
        raise ValueError(f"larger than {LARGEST_QUOTAS >> 20} MiB")
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise ValueError("brackets are nested too deeply") from error
    return restored(upgraded(document, QUOTA_MIGRATIONS, str(state_dir / QUOTA_FILE), _LOST))


class QuotaKeeper:
    """Counts for a daemon, and keeps what it knows of quotas.

    Attributes:
        problem: why it is not on disk, for people; empty when it is.
    """

    def __init__(self, state_dir: Path, wall: Callable[[], float] = time.time) -> None:
        self._path = state_dir / QUOTA_FILE
        self._wall = wall
        self._zone = clock.LocalTime()
        self._boot = counters.boot()
        self._daemon: Daemon | None = None
        self._newer = False
        self._saved = Quotas()
        self._saved_at = float("-inf")
        self._writing = asyncio.Lock()
        self.problem = ""

    def load(self) -> Quotas:
        """Return what the daemon before has kept; damage is set aside, and what a newer version has written stays."""
        try:
            self._saved = Quotas(usages=load_usages(self._path.parent))
        except FileNotFoundError:
            pass
        except NewerError as error:
            self._newer, self.problem = True, str(error)
            log.warning("quota.newer: %s", error)
        except (OSError, ValueError) as error:
            self._set_aside(error)
        return self._saved

    def follow(self, daemon: Daemon) -> None:
        """Count for a daemon, for as long as it runs."""
        self._daemon = daemon
        daemon.meter.listeners.append(self.sampled)
        daemon.feeds.append(self.run)

    def sampled(self, sample: Sample) -> None:
        """Take in a look at the counters of all devices."""
        if self._daemon is None or (config := self._daemon.state.known.config) is None:
            return
        names = configured(config)
        if not names:
            return
        devices = {name: config.uplinks[name].interface for name in names}
        found = {name: (device, sample.counters.get(device)) for name, device in devices.items()}
        seen = {
            name: Seen(device, each.ifindex, self._boot, each.rx, each.tx)
            for name, (device, each) in found.items()
            if each is not None
        }
        self._daemon.post(BytesCounted(seen, self._wall(), self._zone))

    async def enter(self, name: str, reading: int | None, bought: int | None) -> None:
        """Enter what people know of an uplink's quota; returns once it is in force, and on disk if that works."""
        if self._daemon is None:
            return
        entry = QuotaEntered(uplink=name, reading=reading, bought=bought, unix=self._wall(), zone=self._zone)
        await self._daemon.settle(entry)
        await self._save(self._daemon.state.known.quotas)

    async def run(self) -> None:
        """Write what is known, as often as it is worth it, until cancelled."""
        while self._daemon is not None:
            await clock.turn(CADENCE)
            known, now = self._daemon.state.known.quotas, asyncio.get_running_loop().time()
            if save_due(self._saved, known, now - self._saved_at):
                await self._save(known)

    async def close(self) -> None:
        """Write what there is, as far as the disk takes it soon."""
        if self._daemon is not None and self._daemon.state.known.quotas.usages != self._saved.usages:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WRITE):
                    await self._save(self._daemon.state.known.quotas)

    async def _save(self, known: Quotas) -> None:
        if self._newer:
            return
        async with self._writing:
            self._saved_at = asyncio.get_running_loop().time()
            try:
                await asyncio.to_thread(self._write, known.usages)
            except OSError as error:
                problem = f"{self._path} cannot be written: {(error.strerror or str(error)).lower()}"
                if problem != self.problem:
                    log.error("quota.unwritable: %s; a reboot loses what came since", problem)
                self.problem = problem
                return
            if self.problem:
                log.info("quota.written: %s can be written again", self._path)
            self._saved, self.problem = known, ""

    def _write(self, usages: Mapping[str, Usage]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.exchange(self._path, json.dumps(stored(usages), indent=1).encode())

    def _set_aside(self, error: Exception) -> None:
        why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        aside = self._path.with_name(QUOTA_FILE + ASIDE)
        with suppress(OSError):
            self._path.replace(aside)
        log.warning("quota.aside: %s cannot be used (%s): it is now %s; counting begins anew", self._path, why, aside)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What people should know."""
        return (f"the use of quotas is not on disk: {self.problem}",) if self.problem else ()
