"""A program in a terminal of its own: what it draws is put together as a terminal would, keys are typed."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.cells import cell_len

_PIECE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\x00-\x1f])|([^\x00-\x1f])", re.DOTALL)


class Picture:
    """What a terminal shows after some output; of the sequences it knows those that `polywan top` sends.

    Attributes:
        other: the other screen is shown.
        cursor: it is visible.
        wraps: long lines go on in the next one. `overflows`: one was longer than it should while they did not.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.other, self.cursor, self.wraps, self.overflows = False, True, True, False
        self._screens = {False: self._empty(), True: self._empty()}
        self._at = {False: (0, 0), True: (0, 0)}
        self._rest = ""
        self.unknown: list[str] = []

    def _empty(self) -> list[list[str]]:
        return [[" "] * self.columns for _ in range(self.rows)]

    @property
    def lines(self) -> list[str]:
        """The lines without spaces at their ends."""
        return ["".join(line).rstrip() for line in self._screens[self.other]]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def resize(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._screens = {False: self._empty(), True: self._empty()}

    def write(self, text: str) -> None:
        text, self._rest = self._rest + text, ""
        if (begun := re.search(r"\x1b(\[[?0-9;]*)?$", text)) is not None:
            self._rest, text = begun[0], text[: begun.start()]
        for match in _PIECE.finditer(text):
            numbers, letter, control, shown = match.groups()
            if shown:
                self._put(shown)
            elif control:
                self._control(control)
            else:
                self._order(numbers, letter)

    def _put(self, shown: str) -> None:
        row, column = self._at[self.other]
        width = cell_len(shown)
        if column + width > self.columns:
            self.overflows |= not self.wraps
            row, column = (min(row + 1, self.rows - 1), 0) if self.wraps else (row, self.columns - width)
        line = self._screens[self.other][row]
        for cell in range(width):
            line[column + cell] = "" if cell else shown
        self._at[self.other] = (row, column + width)

    def _control(self, control: str) -> None:
        row, column = self._at[self.other]
        if control == "\r":
            self._at[self.other] = (row, 0)
        elif control == "\n":
            if row + 1 == self.rows:
                self._screens[self.other] = [*self._screens[self.other][1:], [" "] * self.columns]
            self._at[self.other] = (min(row + 1, self.rows - 1), column)
        elif control == "\x08":
            self._at[self.other] = (row, max(0, column - 1))

    def _order(self, numbers: str, letter: str) -> None:
        row, _ = self._at[self.other]
        match numbers, letter:
            case "?1049", "h" | "l":
                self.other = letter == "h"
            case "?25", "h" | "l":
                self.cursor = letter == "h"
            case "?7", "h" | "l":
                self.wraps = letter == "h"
            case "2", "J":
                self._screens[self.other] = self._empty()
            case "2", "K":
                self._screens[self.other][row] = [" "] * self.columns
            case _, "H":
                line, column = (int(n) for n in (numbers or "1;1").split(";"))
                self._at[self.other] = (line - 1, column - 1)
            case _, "m":
                pass
            case _:
                self.unknown.append(numbers + letter)


class Terminal:
    """A program in a terminal; a context manager that ends it.

    Attributes:
        picture: what is to be seen.
        written: what the program wrote so far.
    """

    def __init__(
        self, argv: Sequence[str], columns: int = 80, rows: int = 24, environ: Mapping[str, str] | None = None
    ) -> None:
        self.picture = Picture(columns, rows)
        self.written = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.controller, terminal = pty.openpty()
        self._size(columns, rows)
        self.before = termios.tcgetattr(terminal)
        env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **(environ or {})}
        # The terminal of its session tells it of Ctrl-C, of a new size and of its end (tty_ioctl(4)).
        argv = ["setsid", "--ctty", *argv]
        self.process = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=env)
        # Kept open: without it what the program wrote at its end could not be read.
        self.terminal = terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Take the terminal away."""
        for descriptor in (self.controller, self.terminal):
            if descriptor >= 0:
                os.close(descriptor)
        self.controller = self.terminal = -1

    def _size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        self.read(0.0)
        self.picture.resize(columns, rows)
        self._size(columns, rows)

    def type(self, keys: str) -> None:
        os.write(self.controller, keys.encode())

    def read(self, timeout: float) -> bool:
        """Take what the program writes within so many seconds; False when that is nothing."""
        if not select.select([self.controller], [], [], timeout)[0]:
            return False
        data = os.read(self.controller, 1 << 16)
        text = self._decoder.decode(data)
        self.written += text
        self.picture.write(text)
        return True

    def see(self, wanted: Callable[[Picture], Any] | str, timeout: float = 5.0) -> float:
        """Wait until something is to be seen; return the monotonic time."""
        deadline = time.monotonic() + timeout
        seen = (lambda picture: wanted in picture.text) if isinstance(wanted, str) else wanted
        while not seen(self.picture):
            rest = deadline - time.monotonic()
            assert rest > 0, f"not within {timeout:g} s: {wanted}\n{self.picture.text}"
            self.read(rest)
        return time.monotonic()

    def until(self, predicate: Callable[[], Any], timeout: float = 5.0) -> None:
        """Wait until something holds that is not to be seen, and take what is written meanwhile."""
        deadline = time.monotonic() + timeout
        while not predicate():
            assert time.monotonic() < deadline, f"not within {timeout:g} s\n{self.picture.text}"
            self.read(0.02)

    def end(self, timeout: float = 5.0) -> int:
        """Wait for the end of the program, and return its exit code."""
        code = self.process.wait(timeout)
        while self.read(0.0):
            pass
        return code

    @property
    def cpu(self) -> float:
        """Seconds of a CPU that the program has used (clock_getcpuclockid(3))."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    @property
    def settings(self) -> list[Any]:
        """How the terminal is set now."""
        return termios.tcgetattr(self.terminal)

    @property
    def restored(self) -> bool:
        """It is as it was before the program."""
        picture = self.picture
        return (picture.other, picture.cursor, picture.wraps) == (False, True, True) and self.settings == self.before
