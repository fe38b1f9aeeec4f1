"""The table that others cannot flush, made and, when the kernel refuses it, missed in one sentence."""

from __future__ import annotations

import logging

from polywan.core.errors import PolywanError
from polywan.core.ruleset.model import NftTable
from polywan.kernel.api import Kernel

log = logging.getLogger("polywan")


class Holder:
    """Asks the kernel for the table.

    Attributes:
        problem: what its absence means, for people; empty while it is there.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._waiting: NftTable | None = None
        self.problem = ""

    def hold(self, table: NftTable) -> None:
        """Make this the table; what is refused now is for `again`, and never raises: everything works without it."""
        try:
            self._kernel.hold(table)
        except PolywanError as error:
            text = f"a reload of the firewall that flushes every rule will break connections: {error}"
            if text != self.problem:
                log.warning("keep.refused: %s", text)
            self.problem, self._waiting = text, table
            return
        self.problem, self._waiting = "", None

    def again(self) -> None:
        """Make the table that was refused before, if there is one."""
        if self._waiting is not None:
            self.hold(self._waiting)
