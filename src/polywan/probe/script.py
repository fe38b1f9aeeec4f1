"""The script layer: a program of the administrator's looks at the uplink, and its exit status decides.

It runs as the daemon's user, without a shell, in a session of its own that ends with the check (`polywan/child.py`).
"""

from __future__ import annotations

from typing import Final

from polywan.child import TALKATIVE, Child, manner, start
from polywan.core.health.layers import CheckOrder
from polywan.probe.check import CheckAttempt, CheckFailedError, explained, shown
from polywan.threads import Threads

KEPT_OUTPUT: Final = 4096
"""Bytes kept of what it says: the end, as its last line is shown."""

_THREADS: Final = Threads(4, "script")
"""In which programs are started: a disk that hangs takes these, and not all that a machine has."""


def environment(order: CheckOrder) -> dict[str, str]:
    """Return what the program is told; POLYWAN_GATEWAY is empty on links without one."""
    return {
        "POLYWAN_UPLINK": order.uplink,
        "POLYWAN_INTERFACE": order.interface,
        "POLYWAN_FAMILY": f"ipv{order.family:d}",
        "POLYWAN_MARK": f"{order.mark:#x}",
        "POLYWAN_GATEWAY": "" if order.gateway is None else str(order.gateway),
    }


async def check_script(attempt: CheckAttempt) -> str:
    """Run the order's program to its end and return the last line that it said."""
    order = attempt.order
    if not order.command:
        raise CheckFailedError("no program")
    program = shown(order.command[0])
    attempt.pending = f"{program}: did not start within {order.timeout:g} s"
    said = b""

    def take(data: bytes) -> None:
        nonlocal said
        said = (said + data)[-KEPT_OUTPUT:]

    try:
        started = await start(order.command, environment(order), _THREADS)
    except OSError as error:
        raise CheckFailedError(f"{program} cannot be run: {explained(error)}") from error
    attempt.pending = f"{program}: did not end within {order.timeout:g} s"
    child = Child(started, take)
    try:
        await child.over.wait()
    finally:
        status = child.end()
    if child.total > TALKATIVE:
        raise CheckFailedError(f"{program} wrote more than {TALKATIVE >> 20} MiB")
    last = _last_line(said)
    if status == 0:
        return last
    raise CheckFailedError(": ".join(filter(None, (manner(status), last))))


def _last_line(said: bytes) -> str:
    """Return the last line that is not blank, fit to be shown."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return shown(lines[-1]) if lines else ""
