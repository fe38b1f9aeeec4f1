"""PPPoE and L2TP sessions of this network namespace (/proc/net/pppoe, /proc/net/pppol2tp)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_INTERFACE: Final = re.compile(r"^\s*interface (\S+)$", re.MULTILINE)


def carriers(listing: Path = Path("/proc/net/pppoe")) -> frozenset[str]:
    """Return the names of Ethernet devices with a PPPoE session; none where the kernel knows no PPPoE."""
    return frozenset(sessions(listing))


def sessions(listing: Path = Path("/proc/net/pppoe")) -> tuple[str, ...]:
    """Return for each PPPoE session the Ethernet device that carries it; none where the kernel knows no PPPoE.

    Args:
        listing: a heading, then a line for each session: its number, the other end's address, the device.
    """
    lines = _text(listing).splitlines()
    return tuple(parts[2] for line in lines[1:] if len(parts := line.split()) == 3)


def l2tp(listing: Path = Path("/proc/net/pppol2tp")) -> frozenset[str]:
    """Return the PPP devices that are ends of L2TP sessions (net/l2tp/l2tp_ppp.c)."""
    return frozenset(_INTERFACE.findall(_text(listing)))


def _text(listing: Path) -> str:
    try:
        return listing.read_text(errors="replace")
    except OSError:
        return ""
