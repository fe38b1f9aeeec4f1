"""The tables that others cannot flush, made and, when the kernel refuses one, missed in one sentence."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

from polywan.core.errors import PolywanError
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.model import NftTable
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.kernel.api import Kernel

log = logging.getLogger("polywan")

_MEANS: Final = {
    KEEP_TABLE: "a reload of the firewall that flushes every rule will break connections",
    FAST_TABLE: "every packet takes the slow path",
}


class Holder:
    """Asks the kernel for the tables; everything works without them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting: dict[str, NftTable | None] = {}
        self._problems: dict[str, str] = {}

    def hold(self, name: str, table: NftTable | None) -> None:
        """Make this the table of that name; what is refused now is for `again`, and never raises."""
        try:
            self._kernel.hold(name, table)
        except PolywanError as error:
            text = f"{_MEANS[name]}: {error}"
            if text != self._problems.get(name):
                log.warning("keep.refused: %s", text)
            self._problems[name], self._waiting[name] = text, table
            if name == FAST_TABLE and table is not None:
                # The old one may lead by an uplink that is lost: better nothing is fast.
                with suppress(PolywanError):
                    self._kernel.hold(name, None)
            return
        self._problems.pop(name, None)
        self._waiting.pop(name, None)

    def again(self) -> None:
        """Make the tables that were refused before, if there are any."""
        for name, table in tuple(self._waiting.items()):
            self.hold(name, table)

    @property
    def problem(self) -> str:
        """What the absence of the second table means, for people; empty while it is there."""
        return self._problems.get(KEEP_TABLE, "")

    @property
    def slow(self) -> str:
        """Why nothing takes the fast path although it should, for people; empty while it is there."""
        return self._problems.get(FAST_TABLE, "")
