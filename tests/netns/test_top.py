"""`polywan top` and `status --watch` beside a real daemon: what happens is on the screen at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import connect
from support.netns import BuildLab, StartDaemon, until, with_servers
from support.terminals import Picture, Terminal


def top(lab: Lab, daemon: DaemonProcess) -> Terminal:
    argv = [sys.executable, "-m", "polywan", "top", "--runtime-dir", str(daemon.runtime)]
    with lab.router.entered():
        return Terminal(argv)


def row(name: str, *words: str) -> Callable[[Picture], bool]:
    """Something that is true once the line of an uplink begins with these words."""

    def seen(picture: Picture) -> bool:
        lines = [line.lstrip("> ").split() for line in picture.lines]
        return any(line[: len(words) + 1] == [name, *words] for line in lines)

    return seen


def three(lab: Lab) -> str:
    return configuration(lab.topology, (3, 2, 1))


def test_a_pulled_cable_is_on_the_screen_within_a_second(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))
    with top(lab, daemon) as shown:
        shown.see(row("isp2", "up"))
        shown.see("last event: ")
        pulled = lab.cut(2)
        seen = shown.see(row("isp2", "down"))
        assert seen - pulled < 1.0
        assert shown.picture.lines[0].startswith(" DEGRADED  polywan: 3 uplinks: 2 up, 1 down")
        assert shown.picture.lines[1].startswith("isp2: down for 0 s: no carrier")
        shown.see("isp2  up → down: no carrier")
        shown.type("q")
        assert shown.end() == 0
        assert shown.restored


@pytest.mark.alone
def test_the_first_picture_takes_less_than_300_ms_and_each_second_less_than_10_ms_of_a_cpu(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(lab, three(lab))
    with top(lab, daemon) as shown:
        shown.see(row("isp1", "up"))
        assert shown.cpu < 0.3
        shown.see("last event: ")
        before, until_then = shown.cpu, time.monotonic() + 10.0
        while (rest := until_then - time.monotonic()) > 0:
            shown.read(rest)
        assert shown.cpu - before <= 0.1


def test_a_daemon_that_ends_is_said_to_and_the_next_one_is_shown_by_itself(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))
    with top(lab, daemon) as shown:
        shown.see(row("isp3", "up"))
        daemon.stop()
        shown.see(lambda picture: picture.lines[0].startswith(" STALE  as of "), 2.0)
        daemon.start()
        shown.see(lambda picture: picture.lines[0].startswith(" OK "))


def test_a_daemon_that_hangs_makes_what_is_shown_stale(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))
    assert daemon.process is not None
    with top(lab, daemon) as shown:
        shown.see(row("isp3", "up"))
        daemon.process.send_signal(signal.SIGSTOP)
        shown.see("the daemon says nothing", 8.0)
        daemon.process.send_signal(signal.SIGCONT)
        shown.see(lambda picture: picture.lines[0].startswith(" OK "))


def test_connections_are_listed_filtered_and_explained(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))

    async def story() -> None:
        address = next(iter(SERVERS.values()))[0]
        _, connection = await connect(lab, address)
        assert connection is not None
        with top(lab, daemon) as shown:
            await until(lambda: shown.read(0.05) and row("isp1", "up")(shown.picture))
            shown.type("/")
            shown.type("tcp 15.10\r")
            await until(lambda: shown.read(0.05) and "1 connection that match" in shown.picture.text)
            assert str(address) in shown.picture.text
            shown.type("w")
            await until(lambda: shown.read(0.05) and "the kernel agrees" in shown.picture.text)
            assert "this connection uses isp" in shown.picture.text
            shown.type("q")
            await until(lambda: shown.read(0.05) and "1 connection that match" in shown.picture.text)
        connection.close()

    with_servers(lab, story)


def test_all_about_an_uplink_is_what_status_says_of_it(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))
    with top(lab, daemon) as shown:
        shown.see(row("isp1", "up"))
        shown.type("j\r")
        shown.see("isp2 (wan2): up for ")
        shown.see("100.64.2.1")
        shown.type("\x1b")
        shown.see(row("isp1", "up"))


def test_53_uplinks_scroll(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(53)
    daemon = start_daemon(lab, configuration(lab.topology, (1,) * 53))
    with top(lab, daemon) as shown:
        shown.see("of 53")
        shown.type("\x1b[F")
        shown.see(row("isp53", "up"))
        lab.cut(7)
        shown.see("isp7: down for ")
        shown.type("s\x1b[H")
        shown.see(row("isp7", "down"))


def test_a_quiet_terminal_is_sent_little(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))
    with top(lab, daemon) as shown:
        shown.see("last event: ")
        began, before = time.monotonic(), len(shown.written)
        while (rest := began + 4.0 - time.monotonic()) > 0:
            shown.read(rest)
        # A screen has 1920 cells; the connections are read anew every 3 s.
        assert len(shown.written) - before < 4 * 2500


def test_watching_prints_a_line_of_json_for_a_change_as_it_happens(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, three(lab))
    argv = [sys.executable, "-m", "polywan", "status", "--watch", "--json", "--runtime-dir", str(daemon.runtime)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pulled = lab.cut(3)
        states = ""
        while states != "down":
            states = json.loads(process.stdout.readline())["uplinks"][2]["state"]
        assert time.monotonic() - pulled < 1.0
        process.terminate()
