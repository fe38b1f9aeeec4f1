"""The terminal of the user: taken over for a screen, and given back as it was, whatever ends it."""

from __future__ import annotations

import errno
import os
import select
import signal
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeAlias

from polywan.top.keys import KeyReader
from polywan.top.lines import changes
from polywan.top.screen import Size

ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The other screen, no cursor, no wrapping (xterm's ctlseqs: DECSET 1049, 25, 7)."""

LEAVE: Final = "\x1b[m\x1b[H\x1b[2J\x1b[?7h\x1b[?25h\x1b[?1049l"
"""All back; the screen is emptied, since tmux(1) may keep lines of it when its size has changed meanwhile."""

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler: TypeAlias = Callable[[int, FrameType | None], None]
_ESCAPE_ALONE: Final = 0.1
"""Seconds after which nothing more belongs to an Escape."""


class Ended(Exception):  # noqa: N818 - no mistake, the end of a program
    """A signal asked for the end, or the terminal is gone: 0 when no signal was needed to tell."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self.number = number


def refusal(environ: Mapping[str, str], *, terminal: bool) -> str:
    """Return why nothing can be drawn, for people; empty when it can.

    Args:
        environ: TERM is asked for.
        terminal: input and output are one.
    """
    instead = "`polywan status --watch` needs none"
    if not terminal:
        return f"input and output must be a terminal (with ssh: ssh -t); {instead}"
    if environ.get("TERM", "") in ("", "dumb"):
        return f"the terminal cannot be drawn on (TERM={environ.get('TERM', '')}); {instead}"
    return ""


class Terminal:
    """A context manager: the screen is ours inside. Only the main thread may use it, but for `wake`.

    Args:
        descriptor: of the terminal, for reading and writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._terminal = descriptor
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: list[Any] = []
        self._shown: Sequence[str] = ()
        self._taken = self._writing = self._stopping = self._stopped = False
        self._ended = 0
        self._keys = KeyReader()
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._terminal)
        # Whatever signal comes, the wait for keys ends. Only then it is acted on: no handler breaks into other code.
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        handlers: dict[signal.Signals, _Handler] = {
            **dict.fromkeys(_ENDS, self._end),
            signal.SIGTSTP: self._stop,
            signal.SIGCONT: self._go_on,
            signal.SIGWINCH: _resized,
        }
        for number, handler in handlers.items():
            # A shell that starts it in the background has SIGINT ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, handler)
        try:
            self._take()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave the user with half a terminal, and the end does not wait for the foreground.
        for number in (*self._handlers, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)

    @property
    def size(self) -> Size:
        """The size of the terminal now."""
        try:
            return Size(*os.get_terminal_size(self._terminal))
        except OSError as error:
            raise Ended from error

    def show(self, lines: Sequence[str]) -> None:
        """Put lines onto the screen; what is there already is not sent again.

        Raises:
            Ended: the terminal is gone, or a signal asked for the end.
        """
        if text := changes(self._shown, lines):
            self._write(text)
        self._shown = lines

    def wake(self) -> None:
        """End the wait for keys; any thread may."""
        with suppress(BlockingIOError):
            os.write(self._waker, b"\0")

    def forget(self) -> None:
        """Send everything the next time: another program has written on the screen."""
        self._shown = ()

    def keys(self, timeout: float) -> list[str]:
        """Return the keys that were pressed, after at most so many seconds, or when there is something else to do.

        Raises:
            Ended: the terminal is gone, or a signal asked for the end.
        """
        wait = min(timeout, _ESCAPE_ALONE) if self._keys.waits else timeout
        ready, _, _ = select.select([self._terminal, self._woken], [], [], max(0.0, wait))
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        self._attend()
        if self._terminal not in ready:
            return self._keys.flush() if self._keys.waits and not ready else []
        try:
            data = os.read(self._terminal, 4096)
        except OSError as error:
            raise Ended from error
        if not data:
            raise Ended
        return self._keys.feed(data)

    def _take(self) -> None:
        settings = [*self._before]
        # Keys come one by one and are not shown; Ctrl-C, Ctrl-Z and Ctrl-S work as ever (termios(3)).
        settings[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        settings[6] = [*settings[6]]
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        self._taken = True
        while True:
            try:
                termios.tcsetattr(self._terminal, termios.TCSANOW, settings)
                break
            except termios.error as error:
                # In the background it stops here until it is brought to the front, or ended.
                if error.args[0] != errno.EINTR:
                    raise Ended from error
                self._attend_end()
        self._shown = ()
        self._write(ENTER)

    def _give_back(self) -> None:
        if not self._taken:
            return
        self._taken = False
        # Nobody is there to be told when the terminal is gone.
        with suppress(OSError, termios.error):
            # Output that Ctrl-S holds up would hold up the end; only what TCOOFF has stopped goes on by TCOON.
            termios.tcflow(self._terminal, termios.TCOOFF)
            termios.tcflow(self._terminal, termios.TCOON)
            os.write(self._terminal, LEAVE.encode())
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        self._writing = True
        try:
            # What was told before it was known that this waits.
            self._attend_end()
            while data:
                data = data[os.write(self._terminal, data) :]
        except OSError as error:
            raise Ended from error
        finally:
            self._writing = False

    def _attend_end(self) -> None:
        if self._ended:
            raise Ended(self._ended)

    def _attend(self) -> None:
        """Do what signals have asked for."""
        self._attend_end()
        if self._stopping:
            self._stopping = False
            self._give_back()
            before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            # To this thread: it must not go on before it is stopped.
            signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, before)
            self._stopped = True
            self._attend_end()
        if self._stopped:
            # SIGSTOP gives no chance to leave the screen, and the shell may have changed the terminal.
            self._stopped = False
            self._take()

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self._ended = number
        # Ctrl-S may hold output up for ever.
        if self._writing:
            raise Ended(number)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _go_on(self, _number: int, _frame: FrameType | None) -> None:
        self._stopped = True


def _resized(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler ends the wait for keys, and each picture asks for the size."""
