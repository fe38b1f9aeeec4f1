"""What the daemon and the supervisor of a trial log, as lines on standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import ClassVar


def to_stderr() -> logging.Handler:
    """Return a handler that logs to stderr; under systemd each line begins with its syslog priority (sd-daemon(3))."""
    handler = logging.StreamHandler(sys.stderr)
    under_systemd = "JOURNAL_STREAM" in os.environ
    handler.setFormatter(
        _Formatter("%(message)s" if under_systemd else "%(asctime)s %(levelname)s %(message)s", under_systemd)
    )
    return handler


class _Formatter(logging.Formatter):
    """Adds the journal's priority prefix."""

    PRIORITY: ClassVar = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}

    def __init__(self, fmt: str, prefixed: bool) -> None:  # noqa: FBT001 - the one thing that varies
        super().__init__(fmt)
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        text = super().format(record)
        return f"<{self.PRIORITY.get(record.levelno, 6)}>{text}" if self._prefixed else text
