"""Looks each second at the settings that the kernel tells nobody of, a few at a time: somebody else may change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from polywan.core.state.events import Event, ForeignStateChanged
from polywan.core.state.state import State
from polywan.daemon import clock
from polywan.kernel import sysctl

SETTINGS_PERIOD: Final = 1.0
"""Seconds between two looks."""

MOST_SETTINGS: Final = 32
"""Settings of one look, half a millisecond: with many uplinks they take turns."""

REPORTED: Final = frozenset({"rp_filter", "ignore_routes_with_linkdown", "forwarding"})
"""Settings of devices whose changes the kernel reports (RTM_NEWNETCONF, `kernel/notifications.py`)."""


class SettingsWatch:
    """Asks for a read when a setting is not as it was left.

    Args:
        state: returns what the daemon knows.
        post: takes the event.
        read: returns a setting's value, None without one.
    """

    def __init__(
        self,
        state: Callable[[], State],
        post: Callable[[Event], None],
        read: Callable[[str], str | None] = sysctl.read,
    ) -> None:
        self._state = state
        self._post = post
        self._read = read
        self._turn = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await clock.turn(SETTINGS_PERIOD)
            self.look()

    def look(self) -> None:
        """Look once; what the kernel refuses to be set is tried again by the engine, in its own time."""
        state = self._state()
        if state.decision.desired is None or state.known.actual is None or state.done.retries.refused:
            return
        remaining = state.known.actual.sysctls
        wanted = [setting.path for setting in state.decision.desired.sysctls if setting.path in remaining]
        paths = [path for path in wanted if path.rpartition("/")[2] not in REPORTED]
        if any(self._read(path) != remaining[path] for path in self._next(paths)):
            self._post(ForeignStateChanged("setting"))

    def _next(self, paths: Sequence[str]) -> Iterator[str]:
        begin = self._turn if self._turn < len(paths) else 0
        yield from paths[begin : begin + MOST_SETTINGS]
        self._turn = begin + MOST_SETTINGS
