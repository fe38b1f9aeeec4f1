"""What libraries have to say, in lines of our own: never a traceback, and never more than some lines a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("polywan")

LIBRARIES: Final = ("asyncio", "uvicorn.error")

MOST_LOG_LINES: Final = 10
"""Lines in each `SPAN`: one that repeats itself tells nothing more."""

SPAN: Final = 60.0
"""Seconds."""


class Borrowed(logging.Handler):
    """Logs the first line of what a library says, and its error; the traceback for `run --verbose` only.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._since = float("-inf")
        self._lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, or leave it out."""
        now = self._clock()
        if now - self._since >= SPAN:
            if self._lines > MOST_LOG_LINES:
                log.warning("log.shortened: %d lines of libraries were dropped", self._lines - MOST_LOG_LINES)
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines > MOST_LOG_LINES:
            return
        log.log(record.levelno, "%s: %s", record.name, _line(record))
        if record.exc_info:
            log.debug("%s: where", record.name, exc_info=record.exc_info)


def _line(record: logging.LogRecord) -> str:
    said = record.getMessage().strip().split("\n", 1)[0]
    error = record.exc_info[1] if record.exc_info else None
    whole = said if error is None else f"{said}: {type(error).__name__}: {error}"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in whole)


def borrow() -> None:
    """Take over what libraries log; Python would write it to standard error as it comes."""
    handler = Borrowed()
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [handler]
        library.propagate = False
