"""Which devices carry PPPoE sessions: /proc/net/pppoe (drivers/net/ppp/pppoe.c)."""

from __future__ import annotations

from pathlib import Path


def carriers(sessions: Path = Path("/proc/net/pppoe")) -> frozenset[str]:
    """Return the names of Ethernet devices with a PPPoE session; none where the kernel knows no PPPoE.

    Args:
        sessions: a heading, then a line for each session: its number, the other end's address, the device.
    """
    try:
        lines = sessions.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(parts[2] for line in lines[1:] if len(parts := line.split()) == 3)
