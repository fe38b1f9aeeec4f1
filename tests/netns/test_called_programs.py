"""What hooks and check scripts of the real daemon, run as its service runs it, inherit and may do."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from polywan.daemon.tasks.hooks import LONGEST_LINE
from polywan.kernel.privilege import NET_ADMIN
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab, build
from polywan.lab.scenario import configuration
from support.netns import until, with_servers
from support.users import SERVICE, as_the_service

pytestmark = pytest.mark.needs("root")

HOME = Path("/run/polywan-programs")
NET_RAW = 13
HOSTILE = "$(touch {home}/executed);`touch {home}/executed`;\"'%s%n\\\\\x1b]0;x\x07\x1b[2J"
"""What a check script says; the daemon makes it the reason for which the uplink is down."""

PROGRAM = """#!/bin/sh
# Notes what it was given. It tries to change the network first, and to find out what it may do with the daemon.
out=$1/told.${HOOK-script}.$$
tried=
# By a child, since this shell opens files for what it does itself.
ls -l "/proc/$$/fd" > "$1/fds.$$"
try() { if "$@" >/dev/null 2>&1; then tried="$tried $1-$2"; fi; }
try ip link set lo down
try ip route add blackhole 192.0.2.99
try nft add table inet stranger
try tee /proc/sys/net/ipv4/ip_forward
read -r daemon < "$1/lock"
try cat "/proc/$daemon/mem"
try cat "/proc/$daemon/environ"
try readlink "/proc/$daemon/fd/0"
{
    cat "/proc/$$/environ"
    printf '\\n--\\n'
    cat "/proc/$$/cmdline"
    printf '\\n--\\n'
    cat /proc/self/status
    printf '\\n--\\n'
    cat "$1/fds.$$"
    printf '\\n--\\n'
    echo "$tried"
    readlink "/proc/$$/cwd"
    umask
    cat "/proc/$$/stat"
} > "$out.new"
mv "$out.new" "$out"
"""

SCRIPT = """#!/bin/sh
"$1/program" "$@"
cat "$1/saying"
[ ! -e "$1/ill" ]
"""


@dataclass(frozen=True)
class Inherited:
    """What one call of the program wrote down."""

    text: str

    @cached_property
    def parts(self) -> list[str]:
        return self.text.split("\n--\n")

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.parts[0].split("\0") if entry)

    @property
    def arguments(self) -> list[str]:
        return self.parts[1].split("\0")[:-1]

    @property
    def status(self) -> dict[str, str]:
        return dict(line.split(":\t", 1) for line in self.parts[2].splitlines() if ":\t" in line)

    @property
    def open_files(self) -> set[str]:
        """What is open in the shell, but for its script and the file into which this list goes."""
        found = (re.search(r" [0-9]+ -> (.*)$", line) for line in self.parts[3].splitlines())
        return {match[1] for match in found if match and not match[1].startswith(f"{HOME}/")}

    @property
    def rest(self) -> list[str]:
        return self.parts[4].splitlines()


def notes(kind: str) -> list[Inherited]:
    return [Inherited(path.read_text()) for path in HOME.glob(f"told.{kind}.*") if path.suffix != ".new"]


def file(name: str, text: str, mode: int = 0o644) -> None:
    (HOME / name).write_text(text)
    (HOME / name).chmod(mode)


@pytest.fixture(scope="module")
def machine() -> Iterator[tuple[Lab, DaemonProcess]]:
    """Two uplinks; the first one has a script that fails, and hooks are called for it."""
    with build(2) as lab:
        text = configuration(lab.topology, (1, 1)).replace('hold_down = "3s"', 'hold_down = "1s"\nrise = 2', 1)
        text = text.replace("[uplinks.isp2]", _HEALTH + "[uplinks.isp2]", 1)
        hooks = [f'{key} = ["{HOME}/program", "{HOME}", "$(id)", "; id", "-"]' for key in ("up", "down", "degraded")]
        daemon = DaemonProcess(lab.router, "\n".join([text, "[hooks]", *hooks, ""]), HOME, as_the_service)
        file("program", PROGRAM, 0o755)
        file("script", SCRIPT, 0o755)
        file("saying", HOSTILE.format(home=HOME))
        for path in (HOME, daemon.state):
            os.chown(path, SERVICE, SERVICE)
        # Of the daemon's own, what nothing that it starts should have.
        os.environ["SECRET_OF_THE_DAEMON"] = "1"
        try:
            yield lab, daemon
        finally:
            del os.environ["SECRET_OF_THE_DAEMON"]
            daemon.stop()


_HEALTH = f"""[uplinks.isp1.health]
checks = ["script"]
script = ["{HOME}/script", "{HOME}", "$(id)", "; id", "-"]
check_interval = "200ms"

"""


@pytest.fixture(scope="module")
def calls(machine: tuple[Lab, DaemonProcess]) -> dict[str, list[Inherited]]:
    """Calls of hooks and of the script, by kind."""
    lab, daemon = machine

    async def story() -> None:
        daemon.start()
        await until(lambda: notes("up") and notes("script"))
        file("ill", "")
        await until(lambda: notes("down"))

    with_servers(lab, story)
    return {kind: notes(kind) for kind in ("up", "down", "script")}


@pytest.fixture(params=["down", "script"])
def call(request: pytest.FixtureRequest, calls: dict[str, list[Inherited]]) -> Inherited:
    """One call of a hook, and one of the script."""
    return calls[request.param][0]


def test_the_environment_is_what_the_guide_lists_and_nothing_of_the_daemons(calls: dict[str, list[Inherited]]) -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/hooks.md").read_text("utf-8")
    table = guide.partition("| variable | value |")[2].partition("\n\n")[0]
    listed = {name for row in table.splitlines() for name in _words(row.partition(" | ")[0])}
    listed |= {"PATH", "LANG", "PREVIOUS_GATEWAY", "PREVIOUS_ADDRESS6", "PREVIOUS_GATEWAY6"}
    for hook in (*calls["up"], *calls["down"]):
        assert hook.environment.keys() == listed
        assert hook.environment["PATH"] == "/usr/sbin:/usr/bin:/sbin:/bin"
    for script in calls["script"]:
        assert {name for name in script.environment if name not in ("PWD", "OLDPWD", "SHLVL", "_")} == {
            *(
                "PATH",
                "LANG",
                "POLYWAN_UPLINK",
                "POLYWAN_INTERFACE",
                "POLYWAN_FAMILY",
                "POLYWAN_MARK",
                "POLYWAN_GATEWAY",
            )
        }


def _words(cell: str) -> list[str]:
    return [word.strip("`| …") for word in cell.split(",") if "`" in word]


def test_arguments_are_those_of_the_file_whatever_is_in_them(call: Inherited) -> None:
    assert call.arguments[-4:] == [str(HOME), "$(id)", "; id", "-"]


def test_what_a_script_says_is_a_value_of_a_hook_without_control_characters(calls: dict[str, list[Inherited]]) -> None:
    reason = calls["down"][0].environment["REASON"]
    assert f"$(touch {HOME}/executed);`touch {HOME}/executed`;\"'%s%n" in reason
    assert reason.isprintable()
    assert not (HOME / "executed").exists()


def test_it_reads_nothing_speaks_to_one_pipe_and_has_no_other_open_file(call: Inherited) -> None:
    assert "/dev/null" in call.open_files
    (pipe,) = call.open_files - {"/dev/null"}
    assert pipe.startswith("pipe:")


def test_it_can_send_probes_and_change_nothing_in_the_network(call: Inherited) -> None:
    held = {name: int(call.status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    assert held["CapPrm"] == held["CapEff"] == held["CapAmb"] == 1 << NET_RAW
    assert held["CapBnd"] == 1 << NET_RAW | 1 << NET_ADMIN
    assert call.status["NoNewPrivs"] == "1"
    assert call.rest[0].split() == []


def test_it_is_the_daemons_user_in_a_session_of_its_own_at_the_root_with_the_units_umask(call: Inherited) -> None:
    assert call.status["Uid"].split() == call.status["Gid"].split() == [str(SERVICE)] * 4
    assert call.status["Groups"].strip() == ""
    assert call.rest[1:3] == ["/", "0027"]
    group, session = (int(call.rest[3].rpartition(")")[2].split()[n]) for n in (2, 3))
    assert group == session


def test_it_starts_with_no_signal_blocked_or_ignored(call: Inherited) -> None:
    ignored, blocked = int(call.status["SigIgn"], 16), int(call.status["SigBlk"], 16)
    assert blocked == 0
    assert not ignored & ~(1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1)


def test_a_log_of_all_this_has_no_control_character_and_no_line_too_many(
    machine: tuple[Lab, DaemonProcess], calls: dict[str, list[Inherited]]
) -> None:
    assert calls
    lines = [line.text for line in machine[1].log]
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 2 * LONGEST_LINE + 200
    assert not (HOME / "executed").exists()
