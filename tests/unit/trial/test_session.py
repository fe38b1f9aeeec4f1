"""Who sits at this terminal: found in /proc, by real processes."""

from __future__ import annotations

import os

import pytest

from polywan.trial import session
from polywan.trial.processes import ancestors

PTS, CONSOLE, SERIAL = os.makedev(136, 3), os.makedev(4, 1), os.makedev(204, 64)


@pytest.mark.parametrize(
    ("terminals", "window"),
    [
        ([], False),
        ([0, 0], False),
        ([PTS, PTS, 0], True),
        ([PTS, CONSOLE], False),
        ([CONSOLE], False),
        ([PTS, SERIAL, 0], False),
    ],
)
def test_a_window_with_no_console_above_it_tells_nothing(terminals: list[int], window: bool) -> None:
    assert session.in_window(terminals) is window


def test_the_processes_above_are_found_up_to_the_first() -> None:
    found = [*ancestors()]
    assert [one.pid for one in found][:2] == [os.getpid(), os.getppid()]
    assert [one.start for one in found] == sorted((one.start for one in found), reverse=True)


def test_without_a_server_above_the_environment_tells_the_connection() -> None:
    text = "203.0.113.9 50022 192.0.2.1 22"
    if not any(one.name.startswith("sshd") for one in ancestors()):
        assert str(session.here({"SSH_CONNECTION": text})) == text
        assert session.here({}) is None
        assert session.here({"SSH_CONNECTION": "nonsense"}) is None
        found = session.confirmer({"SSH_CONNECTION": text})
        assert (found.remote, found.server_start) == (True, None)


def test_sudo_tells_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice")
    assert session.user() == "alice"
