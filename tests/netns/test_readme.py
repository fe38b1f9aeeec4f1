"""The README's "Use it", typed as it stands, from an empty machine to the first balanced connection of the LAN."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.recipe import bring_up
from polywan.lab.topology import SERVERS, LabUplink
from polywan.lab.traffic import open_connections, shares
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, WaitFor

ROOT = Path(__file__).parents[2]
RESOLVERS = ("1.1.1.1", "8.8.8.8", "9.9.9.9")
"""Whom the daemon asks by default."""

WHOLE = 180
"""Seconds that all three commands may take."""

FRESH = ("/etc", "/opt", "/usr/local", "/usr/lib", "/var/lib")
"""What the commands write to: each is covered, so that the machine stays as it is."""

STAND_INS = {
    "apt-get": 'echo "apt-get $* was not to be called" >&2\nexit 1\n',
    "systemd-sysusers": 'grep -q "^u polywan " /usr/lib/sysusers.d/polywan.conf\n',
    # What systemd does: the command of the unit, found by its name.
    "systemctl": (
        'if [ "$1" = daemon-reload ]; then exit 0; fi\n'
        'test "$*" = "enable --now polywan"\n'
        "command=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/polywan.service)\n"
        'env -i PATH=/usr/local/bin:/usr/bin:/bin PYTHONPATH="$PYTHONPATH" $command > "$HOME/log" 2>&1 &\n'
        "tries=300\n"
        'until polywan status > /dev/null 2>&1; do tries=$((tries - 1)); test "$tries" -gt 0; sleep 0.1; done\n'
    ),
}
"""Commands that reach the network or the machine's own service manager, which no namespace hides."""


def block() -> str:
    """The commands of the README."""
    section = (ROOT / "README.md").read_text("utf-8").split("## Use it")[1].split("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def rename(lab: Lab, uplink: LabUplink, device: str) -> None:
    """Give the uplink's device the name that the README uses; a device has to be down for that on older kernels."""
    lab.router.ip([f"link set {uplink.interface} down", f"link set {uplink.interface} name {device}"])
    lab.router.ip(re.sub(rf"\bdev {uplink.interface}\b", f"dev {device}", line) for line in bring_up(uplink))


ENTER = """\
polywan() {
    case $1 in
    init) printf '\\n\\n\\n' | python3 -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)' polywan "$@" ;;
    *) command polywan "$@" ;;
    esac
}"""
"""Questions are answered at a terminal, by pressing Enter."""


def script(home: Path) -> str:
    """The README's commands over a machine that is covered, kept running until it is ended."""
    covers = []
    for number, folder in enumerate(FRESH):
        upper, work = f"{home}/covers/{number}/upper", f"{home}/covers/{number}/work"
        covers.append(f"mkdir -p {upper} {work}")
        covers.append(f"mount -t overlay overlay -o lowerdir={folder},upperdir={upper},workdir={work} {folder}")
    return "\n".join(
        [
            "set -eu",
            "mount --make-rprivate /",
            f"mount -t tmpfs tmpfs {home}/covers",
            *covers,
            f"touch {home}/covered",
            "rm -rf /opt/polywan /etc/polywan /var/lib/polywan /usr/local/bin/polywan",
            "mkdir -p /etc/systemd/system /usr/lib/sysusers.d /run/polywan",
            "mount -t tmpfs tmpfs /run/polywan",
            ENTER,
            "date +%s > $HOME/began",
            block(),
            "date +%s > $HOME/ended",
            "polywan status",
            f"touch {home}/done",
            "wait",
            "sleep infinity",
        ]
    )


def type_it(lab: Lab, home: Path) -> subprocess.Popen[str]:
    """Type the commands in the router. What pip would fetch is at hand: from the environment of these tests."""
    stand_ins = home / "bin"
    stand_ins.mkdir(parents=True)
    (home / "covers").mkdir()
    for name, text in STAND_INS.items():
        (stand_ins / name).write_text(f"#!/bin/sh\nset -eu\n{text}")
        (stand_ins / name).chmod(0o755)
    python = Path(os.path.realpath(sys.executable)).parent
    environment = {
        "HOME": str(home),
        "PATH": f"{stand_ins}:{python}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    (home / "script").write_text(script(home))
    with (home / "said").open("w") as said:
        return lab.router.start(
            ["sh", "-c", f"cd {ROOT} && exec unshare --mount sh {home}/script"],
            stdout=said,
            stderr=subprocess.STDOUT,
            environment=environment,
        )


@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("ensurepip") is None,
    reason="hatchling or ensurepip is absent, and pip may fetch nothing here",
)
def test_the_readme_typed_as_it_stands_balances_the_lan(lab_of: BuildLab, wait_for: WaitFor) -> None:
    lab = lab_of(2, families=[Family.V4])
    for number, device in ((1, "eth1"), (2, "eth2")):
        rename(lab, lab.topology.uplink(number), device)
    lab.server.ip(f"address add {address}/32 dev lo" for address in RESOLVERS)
    home = Path("/run/polywan-readme")
    shutil.rmtree(home, ignore_errors=True)
    typed = type_it(lab, home)

    def said() -> str:
        return "".join(f.read_text() for f in (home / "said", home / "log") if f.exists())

    try:
        wait_for(lambda: (home / "done").exists() or typed.poll() is not None, timeout=120.0, what="typed")
        if not (home / "covered").exists():
            pytest.skip(f"folders cannot be covered here: {said()}")
        assert (home / "done").exists(), said()
        began, ended = (int((home / name).read_text()) for name in ("began", "ended"))
        assert ended - began < WHOLE

        async def story() -> None:
            opened = await open_connections(lab, 40, SERVERS[Family.V4][0])
            opened.close()
            assert shares(a.uplink for a in opened.attempts) == {1: 20, 2: 20}, said()

        with_servers(lab, story)
        assert {"eth1", "eth2"} <= {line.split()[0] for line in said().splitlines() if line}
    finally:
        os.killpg(typed.pid, signal.SIGKILL)
        typed.wait()


def test_three_commands_are_to_be_typed() -> None:
    lines = block().splitlines()
    assert [line.split()[0] for line in lines] == ["./scripts/install", "polywan", "systemctl"]
    assert max(map(len, lines)) <= 110
