"""The table that others cannot flush, made and, when the kernel refuses it, missed in one sentence."""

from __future__ import annotations

import logging

from polywan.core.errors import PolywanError
from polywan.core.nft import NftTable
from polywan.kernel.api import Kernel

log = logging.getLogger("polywan")


class Holder:
    """Asks the kernel for the table.

    Attributes:
        problem: what its absence means, for people; empty while it is there.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.problem = ""

    def hold(self, table: NftTable) -> None:
        """Make this the table; never raises for a refusal, since everything works without it."""
        told, self.problem = self.problem, ""
        try:
            self._kernel.hold(table)
        except PolywanError as error:
            self.problem = f"a reload of the firewall that flushes every rule will break connections: {error}"
            if self.problem != told:
                log.warning("keep.refused: %s", self.problem)
