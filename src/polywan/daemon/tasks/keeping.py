"""Keep what the daemon must not forget: written at once, or again and again until it can be."""

from __future__ import annotations

import logging
from pathlib import Path

from polywan.core.state.memory import Memory
from polywan.daemon import store

log = logging.getLogger("polywan")


class Keeper:
    """Writes memory into a state directory.

    Attributes:
        unsaved: why what is to be remembered is not on disk; empty when it is.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._waiting: Memory | None = None
        self.unsaved = ""

    def remember(self, memory: Memory) -> None:
        """Write it; what cannot be written now is for `again`."""
        try:
            store.save(self._state_dir, memory)
        except OSError as error:
            text = f"{self._state_dir} cannot be written: {(error.strerror or str(error)).lower()}"
            if text != self.unsaved:
                log.error("state.unwritable: %s; after a restart marks may change and operator commands are lost", text)
            self.unsaved, self._waiting = text, memory
            return
        if self.unsaved:
            log.info("state.written: %s can be written again; a restart keeps the current state", self._state_dir)
        self.unsaved, self._waiting = "", None

    def again(self) -> None:
        """Write what could not be written before, if there is anything."""
        if self._waiting is not None:
            self.remember(self._waiting)
