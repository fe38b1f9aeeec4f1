"""Start the supervisor of a trial, so that nothing of this terminal is needed any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from polywan.core.errors import PolywanError
from polywan.core.trial.record import Record
from polywan.trial import processes
from polywan.trial.place import Place

VERB: Final = "supervise"
"""The verb that the supervisor is; not listed, since no user calls it."""

ARMED_WITHIN: Final = 15.0
"""Seconds until the supervisor has to watch: Python starts within one, on a small board within three."""

_POLL: Final = 0.02


def arm(place: Place, record: Record) -> Record:
    """Start the supervisor, and return the record once it watches.

    Raises:
        PolywanError: it does not start; then nothing watches.
    """
    words = [*launcher(), VERB, "--config", str(place.file)]
    apart = processes.under_systemd() and os.geteuid() == 0
    try:
        if apart:
            done = subprocess.run(
                in_unit(words, record.id, record.daemon.unit), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PolywanError(f"systemd does not start the supervisor: {done.stderr.strip() or done.returncode}")
        else:
            _detached(words)
    except OSError as error:
        raise PolywanError(f"the supervisor cannot be started: {error.strerror}") from error
    until = time.monotonic() + ARMED_WITHIN
    while time.monotonic() < until:
        found = place.pending()
        if found is not None and found.supervisor is not None and found.supervisor != record.supervisor:
            return found
        time.sleep(_POLL)
    raise PolywanError(f"the supervisor did not begin to watch within {ARMED_WITHIN:g} s")


def in_unit(words: Sequence[str], trial: str, daemon: str) -> list[str]:
    """Return the command that runs others in a transient unit of systemd: no session, no scope, no daemon ends it.

    What it logs is shown with the daemon's unit, too: `journalctl --unit` looks at that field (journalctl(1)).
    """
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit=polywan-trial-{trial}",
        "--description=polywan: rolls a configuration back that is not confirmed",
        "--service-type=exec",
        "--property=KillSignal=SIGKILL",
        *([f"--property=LogExtraFields=OBJECT_SYSTEMD_UNIT={daemon}"] if daemon else []),
        "--",
        *words,
    ]


def launcher() -> list[str]:
    """Return the words by which this very polywan is called, whatever the PATH of others is."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py" or not program.is_file():
        return [sys.executable, "-m", "polywan"]
    return [str(program.absolute())]


def _detached(words: Sequence[str]) -> None:
    """Start a program in a session of its own, whose parent is the first process: the middle one ends at once."""
    middle = os.fork()
    if middle:
        _, status = os.waitpid(middle, 0)
        if status:
            raise OSError(0, "its process does not start")
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.closerange(3, min(_MOST_OPEN, os.sysconf("SC_OPEN_MAX")))
        os.chdir("/")
        os.execv(words[0], [*words])  # noqa: S606 - a list, no shell
    except BaseException:  # noqa: BLE001 - nothing of the parent may go on in a child
        os._exit(1)


_MOST_OPEN: Final = 4096
"""Descriptors that may be open in a command: far fewer are."""
