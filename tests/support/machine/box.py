"""A box as a user has it: the package installed on a machine, between a LAN and its providers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from polywan.lab.network import Lab, build
from polywan.lab.scenario import configuration
from support.machine.booted import Disk, Machine, until

CONFIG = "/etc/polywan/polywan.toml"
SERVICE = "polywan.service"
NEXT = "99.0"
"""The version that a box is brought up to."""


class Box:
    """A machine in the place of the lab's router, between a LAN and that many providers; a context manager."""

    def __init__(self, tree: Path, uplinks: int = 2) -> None:
        with ExitStack() as undo:
            self.lab = build(uplinks)
            undo.callback(self._close_lab)
            self.disk = Disk(tree)
            undo.callback(self.disk.close)
            self.machine = Machine(self.disk, self.lab.router)
            undo.callback(self._kill)
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _close_lab(self) -> None:
        self.lab.close()

    def _kill(self) -> None:
        self.machine.kill()

    def install(self, deb: Path) -> str:
        """Install a package, or bring it up to date, and return what that printed."""
        self.disk.root.joinpath("var/tmp", deb.name).write_bytes(deb.read_bytes())
        return self.apt("install", f"/var/tmp/{deb.name}")

    def apt(self, verb: str, what: str) -> str:
        """Let apt install, remove or purge, and return what that printed."""
        words = ("apt-get", verb, "--yes", "--allow-downgrades", "--no-install-recommends", what)
        done = self.machine.run("env", "DEBIAN_FRONTEND=noninteractive", *words)
        return done.stdout + done.stderr

    def reboot(self, prepare: Callable[[Lab], None] = lambda lab: None, *, in_order: bool = True) -> None:
        """Shut down, in order or not, and boot again, into a network as it is after `prepare`.

        The kernel's state went with the old network, as it does at a boot.
        """
        if in_order:
            self.machine.power_off()
        else:
            self.machine.kill()
        uplinks = len(self.lab.topology.uplinks)
        self.lab.close()
        self.lab = build(uplinks)
        prepare(self.lab)
        self.machine = Machine(self.disk, self.lab.router)

    def start(self) -> None:
        """Write the lab's configuration, and start the service now and at every boot."""
        self.disk.write(CONFIG, self.config)
        self.machine.run("systemctl", "enable", "--now", SERVICE)
        self.balanced()

    @property
    def config(self) -> str:
        """The configuration for this lab."""
        return configuration(self.lab.topology, (1,) * len(self.lab.topology.uplinks))

    def balanced(self, *names: str, timeout: float = 20.0) -> None:
        """Wait until these uplinks serve, all of them unless some are named."""
        wanted = set(names) or {uplink.name for uplink in self.lab.topology.uplinks}
        until(lambda: self.up() == wanted, timeout, f"{wanted} serve")

    def up(self) -> set[str]:
        """Return the names of the uplinks that serve; none while no daemon answers."""
        done = self.polywan("status", "--json", check=False)
        return {u["name"] for u in json.loads(done.stdout)["uplinks"] if u["state"] == "up"} if done.stdout else set()

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        found: dict[str, Any] = json.loads(self.polywan("status", "--json").stdout)
        return found

    def polywan(self, *words: str, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command in the machine."""
        return self.machine.run("polywan", *words, user=user, check=check)

    @property
    def pid(self) -> int:
        """The daemon's process number, as the machine counts."""
        return int(self.machine.show(SERVICE, "MainPID"))

    @property
    def daemon_outside(self) -> int:
        """The same process as it is numbered outside of the machine."""
        return self.machine.processes_of(SERVICE)[0]

    def signal(self, name: str) -> None:
        """Send the daemon a signal."""
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={name}", SERVICE)

    def restarted(self, before: int, timeout: float = 30.0) -> int:
        """Wait until another daemon than that process is ready, and return its number."""

        def ready() -> int:
            active = self.machine.show(SERVICE, "ActiveState") == "active"
            return self.pid if active and self.pid not in (0, before) else 0

        return until(ready, timeout, "the service is active again")
