"""The terminal is drawn on as it is, and given back as it was, whatever ends the program."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from support.terminals import Picture, Terminal

TESTS = Path(__file__).parents[2]
SHOW = """
import sys
from pathlib import Path
from polywan.cli.top import show
from support.screens import many, three
show(Path("/nonexistent"), three() if len(sys.argv) < 2 else many(int(sys.argv[1])))
"""
BREAKS = """
from polywan.top.terminal import Terminal
with Terminal(1) as terminal:
    terminal.show(["drawn"])
    terminal.keys(5.0)
    raise RuntimeError("broken")
"""


def terminal(code: str = SHOW, *words: str, columns: int = 80, rows: int = 24, **environ: str) -> Terminal:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])
    return Terminal([sys.executable, "-c", code, *words], columns, rows, {"PYTHONPATH": path, **environ})


def drawn(picture: Picture) -> bool:
    return picture.other and "q quit" in picture.lines[-1]


@pytest.mark.parametrize(
    ("key", "number", "code"),
    [
        ("q", None, 0),
        ("\x03", None, 0),
        ("", signal.SIGTERM, -signal.SIGTERM),
        ("", signal.SIGHUP, -signal.SIGHUP),
        ("", signal.SIGINT, 0),
    ],
)
def test_the_terminal_is_as_before_after_every_end(key: str, number: int | None, code: int) -> None:
    with terminal() as shown:
        shown.see(drawn)
        assert not shown.picture.cursor
        if number is None:
            shown.type(key)
        else:
            shown.process.send_signal(number)
        assert shown.end() == code
        assert shown.restored
        assert shown.picture.text.strip() == ""
        assert (shown.picture.unknown, shown.picture.overflows) == ([], False)


def test_the_terminal_is_as_before_when_something_breaks() -> None:
    with terminal(BREAKS) as shown:
        shown.see("drawn")
        shown.type("x")
        assert shown.end() == 1
        assert shown.restored
        assert "RuntimeError: broken" in shown.picture.text


def test_a_terminal_that_is_taken_away_ends_it() -> None:
    with terminal() as shown:
        shown.see(drawn)
        shown.close()
        assert shown.process.wait(5.0) in (0, -signal.SIGHUP)


def test_output_that_is_held_up_does_not_hold_up_the_end() -> None:
    with terminal() as shown:
        shown.see(drawn)
        shown.type("\x13")
        shown.type("h")
        shown.process.send_signal(signal.SIGTERM)
        assert shown.end() == -signal.SIGTERM
        assert shown.restored


def test_ctrl_z_gives_the_terminal_back_and_fg_draws_all_of_it_again() -> None:
    with terminal("import os; os.execvp('sh', ['sh', '-i'])", PS1="$ ", ENV="") as shown:
        shown.see("$")
        before = shown.settings
        shown.type(f"{sys.executable} -c '{SHOW}'\n")
        shown.see(drawn)
        shown.type("\x1a")
        shown.see(lambda picture: not picture.other and "Stopped" in picture.text)
        assert shown.picture.cursor
        assert shown.settings == before
        shown.type("fg\n")
        shown.see(drawn)
        assert shown.picture.lines[0].startswith((" DEGRADED", " STALE"))
        shown.type("q")
        shown.see(lambda picture: not picture.other)


def test_in_the_background_it_waits_until_it_is_brought_to_the_front() -> None:
    with terminal("import os; os.execvp('sh', ['sh', '-i'])", PS1="$ ", ENV="") as shown:
        shown.see("$")
        shown.type(f"{sys.executable} -c '{SHOW}' &\n")
        shown.until(lambda: [pid for pid in children(shown.process.pid) if stopped(pid)])
        (pid,) = children(shown.process.pid)
        assert not shown.picture.other
        shown.type("fg\n")
        shown.see(drawn)
        shown.type("\x1a")
        shown.see(lambda picture: not picture.other)
        shown.type("bg\n")
        shown.until(lambda: stopped(pid))
        shown.type("fg\n")
        shown.see(drawn)


@pytest.mark.parametrize("stop", ["\x1a", ""])
def test_a_stopped_one_ends_by_a_signal_without_coming_to_the_front(stop: str) -> None:
    with terminal("import os; os.execvp('sh', ['sh', '-i'])", PS1="$ ", ENV="") as shown:
        shown.see("$")
        shown.type(f"{sys.executable} -c '{SHOW}'\n")
        shown.see(drawn)
        (pid,) = children(shown.process.pid)
        shown.type(stop)
        if not stop:
            os.kill(pid, signal.SIGSTOP)
        shown.until(lambda: stopped(pid))
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        shown.until(lambda: state(pid) == "Z")
        shown.see(lambda picture: not picture.other)
        assert shown.picture.cursor


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    """Return its letter (proc_pid_stat(5)); of one that is gone that of one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def stopped(pid: int) -> bool:
    return state(pid) == "T"


def test_after_being_stopped_without_warning_it_takes_the_terminal_again() -> None:
    with terminal() as shown:
        shown.see(drawn)
        shown.process.send_signal(signal.SIGSTOP)
        shown.picture.write("\x1b[?1049l\x1b[?25h")
        shown.process.send_signal(signal.SIGCONT)
        shown.see(drawn)
        assert not shown.picture.cursor


@pytest.mark.parametrize(("columns", "rows"), [(120, 40), (40, 15), (80, 24), (30, 6)])
def test_a_new_size_is_drawn_at_once(columns: int, rows: int) -> None:
    with terminal(columns=100, rows=30) as shown:
        shown.see(drawn)
        shown.resize(columns, rows)
        wanted = "too small" if rows == 6 else "q quit"
        shown.see(lambda picture: wanted in picture.lines[-1] or wanted in picture.lines[0], 0.9)


def test_without_a_daemon_it_says_what_is_stale_since_when_and_goes_on() -> None:
    with terminal() as shown:
        shown.see(lambda picture: picture.lines[0].startswith(" STALE  as of "))
        assert "trying again: no daemon answers at" in shown.picture.lines[0]
        shown.type("j")
        shown.see("> dsl")


def test_no_colour_and_plain_ascii_where_these_are_wanted() -> None:
    with terminal(NO_COLOR="1", LC_ALL="C") as shown:
        shown.see(drawn)
        assert shown.written.isascii()
        assert not re.search(r"\x1b\[[39]\dm", shown.written)


def test_a_terminal_without_such_a_screen_is_left_alone() -> None:
    with terminal("from polywan.cli import main; main()", "top", TERM="dumb") as shown:
        assert shown.end() == 2
        assert "`polywan status --watch` needs none" in shown.picture.text.replace("\n", "")


def test_a_key_is_answered_at_once_and_what_stays_is_not_sent_again() -> None:
    with terminal(SHOW, "53") as shown:
        shown.see(drawn)
        shown.see("STALE")
        before = len(shown.written)
        shown.type("j")
        shown.see("> isp2", 0.9)
        assert len(shown.written) - before < 1000
