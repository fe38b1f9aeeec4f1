"""Processes of several users around one daemon, which runs as the packaged service does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polywan.lab.namespaces import Namespace

SERVICE = 4711
"""User and group of the daemon; its group is that of the control socket."""

KILLED_WITH_US = ["--pdeathsig", "KILL"]
"""As with any process of the lab; it has to be said behind a change of the user, which would cancel it."""

PYTHON = next((path for path in ("/usr/bin/python3",) if Path(path).exists()), sys.executable)
"""The system's, which every user may run; that of an environment may be in root's home directory."""

AS_THE_SERVICE = [
    *("setpriv", f"--reuid={SERVICE}", f"--regid={SERVICE}", "--clear-groups", "--no-new-privs", *KILLED_WITH_US),
    *("--bounding-set=-all,+net_admin,+net_raw", "--inh-caps=-all,+net_admin,+net_raw"),
    *("--ambient-caps=-all,+net_admin,+net_raw", "--"),
]
"""Runs a program as packaging/polywan.service does: with its user, capabilities and nothing to gain."""


def as_the_service(
    namespace: Namespace, arguments: Sequence[str], *, behind: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start `polywan` as the service's user (a `Spawn` of lab/daemon.py), as the last words of the command `behind`."""
    # `umask` is the unit's; the shell is gone before the daemon starts.
    shell = ["sh", "-c", 'umask 0027; exec "$@"', "sh"]
    argv = [*behind, *shell, *AS_THE_SERVICE, sys.executable, "-m", "polywan", *arguments]
    return namespace.start(argv, stderr=subprocess.PIPE, environment={"PYTHONUNBUFFERED": "1"})


@dataclass(frozen=True)
class User:
    """Somebody on the machine.

    Attributes:
        name: of the test's id.
        uid: user and group.
        groups: others, beside his own.
        contained: he is root of a user namespace of his own.
    """

    name: str
    uid: int
    groups: tuple[int, ...] = ()
    contained: bool = False

    def run(self, program: str, *arguments: str, value: Any = None) -> Any:
        """Run a Python program, whose last argument is a value as JSON, and return the value that it prints as JSON."""
        groups = [f"--groups={','.join(map(str, self.groups))}"] if self.groups else ["--clear-groups"]
        rights = [f"--reuid={self.uid}", f"--regid={self.uid}", *groups]
        if self.uid:
            rights += ["--inh-caps=-all", "--ambient-caps=-all"]
        own = ["unshare", "--user", "--map-root-user"] if self.contained else []
        argv = ["setpriv", *rights, *KILLED_WITH_US, "--", *own, PYTHON, "-I", "-S", "-c", program]
        done = subprocess.run(
            [*argv, *arguments, json.dumps(value)], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
