"""What libraries log, in our own lines."""

from __future__ import annotations

import logging

import pytest

from polywan.library_log import MOST_LOG_LINES, SPAN, Borrowed


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def library(clock: Clock) -> logging.Logger:
    made = logging.getLogger("library")
    made.handlers, made.propagate = [Borrowed(clock)], False
    return made


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "polywan"]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What our own log says; the library's records are shown to pytest as well."""
    return [record.getMessage() for record in ours(caplog) if record.levelno > logging.DEBUG]


def test_an_error_of_a_library_is_one_line_without_a_traceback(
    library: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    library.error("socket.accept() out of system resource\nsocket: <x>", exc_info=OSError(24, "Too many\nopen files"))
    assert lines(caplog) == [
        "library: socket.accept() out of system resource: OSError: [Errno 24] Too many\\x0aopen files"
    ]
    assert ours(caplog)[0].exc_info is None


def test_what_is_no_warning_is_not_told(library: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    library.info("Started server process")
    assert lines(caplog) == []


def test_a_library_that_repeats_itself_is_cut_short_and_heard_again_later(
    library: logging.Logger, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10_000):
        library.error("again")
    assert len(lines(caplog)) == MOST_LOG_LINES
    clock.now += SPAN
    library.error("later")
    assert lines(caplog)[MOST_LOG_LINES:] == ["log.shortened: 9990 lines of libraries were dropped", "library: later"]
