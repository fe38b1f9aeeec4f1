"""The loop of `polywan top`: what is heard and what is pressed changes the view, and the view is drawn."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Final

from polywan.api.status import Status
from polywan.top.display import Display
from polywan.top.feed import Feed
from polywan.top.handling import AskWhy, Quit, Redraw, press
from polywan.top.lines import painted
from polywan.top.screen import Size, screen
from polywan.top.terminal import Terminal
from polywan.top.view import View, hear

REDRAW_EVERY: Final = 1.0
"""Seconds between two pictures when nothing happens."""

REDRAW_SOONEST: Final = 0.05
"""Seconds between two pictures, whatever happens."""


def watch(directory: Path, status: Status, display: Display, descriptor: int) -> None:
    """Show the state of everything until the user has seen enough.

    Args:
        directory: the daemon's runtime directory.
        status: for the first picture.
        display: how to write it.
        descriptor: of the terminal.

    Raises:
        Ended: a signal asked for the end, or the terminal is gone.
    """
    view = View(display=display, status=status, heard=_now())
    with Terminal(descriptor) as terminal:
        feed = Feed(directory, terminal.wake)
        size = _draw(terminal, view)
        feed.start()
        drawn = time.monotonic()
        dirty = False
        while True:
            wait = (REDRAW_SOONEST if dirty else REDRAW_EVERY) - (time.monotonic() - drawn)
            for key in terminal.keys(wait):
                view, order = press(view, key)
                match order:
                    case Quit():
                        return
                    case Redraw():
                        terminal.forget()
                    case AskWhy(row):
                        feed.ask_why(row)
                dirty = True
            for news in feed.news():
                view = hear(view, news, _now())
                dirty = True
            if view.below == "connections" and view.pane is None:
                feed.read_flows(view, time.monotonic())
            dirty |= terminal.size != size
            since = time.monotonic() - drawn
            if since >= REDRAW_EVERY or (dirty and since >= REDRAW_SOONEST):
                size = _draw(terminal, view)
                drawn, dirty = time.monotonic(), False


def _draw(terminal: Terminal, view: View) -> Size:
    """Draw a view, and return the size that it was drawn for."""
    size = terminal.size
    lines = screen(view, size, _now())
    terminal.show([painted(line, size.columns, colours=view.display.colours) for line in lines])
    return size


def _now() -> datetime:
    return datetime.now().astimezone()
