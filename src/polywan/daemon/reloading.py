"""Put a configuration in force: at the start, and by `reload`, which takes a new one whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from polywan.api.running import Reloaded
from polywan.config import Config, Loaded, load_with_warnings, names_below
from polywan.core.errors import CapacityError, ConfigError, ControlError, Problem
from polywan.core.routing.sysctls import wants_multipath
from polywan.core.state.events import ConfigLoaded
from polywan.core.status.config_changes import changes
from polywan.core.status.document import InForce
from polywan.core.words import counted, printable
from polywan.core.world.lookups import Lookups
from polywan.daemon.lookups.watcher import FIRST_LOOKUP_WAIT, LookupWatcher
from polywan.daemon.loop import Daemon
from polywan.kernel.api import Kernel
from polywan.notify import notify

log = logging.getLogger("polywan")


class Reloader:
    """Reads the file and hands the loop what is in it.

    Attributes:
        busy: held while a configuration is put in force.
        file: the configuration.
        texts: what is in force, by names below its directory; empty before the first.
        in_force: since when, and whether a later one was refused.
    """

    def __init__(self, daemon: Daemon, kernel: Kernel, lookups: LookupWatcher, file: Path) -> None:
        self._daemon = daemon
        self._kernel = kernel
        self._lookups = lookups
        self.file = file.absolute()
        self.busy = asyncio.Lock()
        self.texts: Mapping[str, str] = {}
        self.in_force = InForce()

    async def begin(self, loaded: Loaded) -> None:
        """Put the first configuration in force, once what it refers to is known."""
        async with self.busy:
            self._daemon.post(taken_in(loaded, await self._lookups.follow(loaded.config, FIRST_LOOKUP_WAIT)))
            self._entered(loaded)

    async def read(self) -> Loaded:
        """Read the file; errors as `config.load_with_warnings`."""
        try:
            return await asyncio.to_thread(load_with_warnings, self.file)
        except ConfigError:
            self._refused()
            raise

    def _entered(self, loaded: Loaded) -> None:
        self.texts, self.in_force = names_below(self.file, loaded.texts), InForce(time.time())

    def _refused(self) -> None:
        self.in_force = InForce(self.in_force.since, refused=True)

    async def reload(self, loaded: Loaded | None = None) -> Reloaded:
        """Read the file again, or take what was read; what is wrong with it, in whatever way, changes nothing.

        Raises:
            ConfigError: the file is bad, or asks for what there is not.
            ControlError: it could not be put in force for a reason that nobody thought of.
        """
        async with self.busy:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                return await self._put_in_force(loaded or await self.read())
            except ConfigError as error:
                self._refused()
                log.error("reload.refused: the old configuration stays in force\n%s", error)
                raise
            except Exception as error:
                self._refused()
                text = f"the old configuration stays in force, the new one cannot be prepared: {_named(error)}"
                log.error("reload.refused: %s", printable(text))
                log.debug("reload.refused: where it failed", exc_info=error)
                raise ControlError(f"{text}; `polywan run -v` logs where it failed", 500) from error
            finally:
                notify("READY=1")

    async def _put_in_force(self, loaded: Loaded) -> Reloaded:
        before = self._daemon.state
        file = before.known.config.file if before.known.config is not None else None
        await asyncio.to_thread(demand, self._kernel, loaded.config, file, self.file)
        began = time.perf_counter()
        try:
            lookups = await self._lookups.follow(loaded.config)
            began = time.perf_counter()
            await self._daemon.settle(taken_in(loaded, lookups))
        except Exception as error:
            if file is not None:
                await self._lookups.follow(file)
            if isinstance(error, CapacityError):
                raise ConfigError([Problem(str(self.file), "global.mark_mask", str(error))]) from error
            raise
        self._entered(loaded)
        plans = self._daemon.state.done.generation - before.done.generation
        elapsed = 1000 * (time.perf_counter() - began)
        differences = changes(file, loaded.config) if file is not None else ()
        what = "; ".join(differences) or "no change in the file"
        log.info("reload.done: %s; %s carried out in %.1f ms", printable(what), counted(plans, "plan"), elapsed)
        return Reloaded(
            generation=self._daemon.state.done.generation,
            changed=plans > 0 or self._daemon.state.decision.held != before.decision.held,
            ms=round(elapsed, 2),
            changes=tuple(differences),
        )


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")


def taken_in(loaded: Loaded, lookups: Lookups) -> ConfigLoaded:
    """Return the event that puts a configuration in force, with what people should know about it."""
    return ConfigLoaded(loaded.config, tuple(map(str, loaded.warnings)), lookups=lookups, rules_at=loaded.rules_at)


def demand(kernel: Kernel, config: Config, before: Config | None, file: Path) -> None:
    """Refuse a new configuration that asks for more of the kernel than the one before it did.

    Raises:
        ConfigError: the kernel does not have it.
    """
    if not wants_multipath(config) or (before is not None and wants_multipath(before)):
        return
    if lacking := kernel.missing(multipath=True):
        raise ConfigError([Problem(str(file), "policies", f"this machine lacks {line}") for line in lacking])
