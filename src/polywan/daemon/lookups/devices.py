"""Read what hardware is behind links (/sys/class/net, /sys/class/tty), and which PPP sessions there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from polywan.core.detection.kinds import Device, Hardware
from polywan.core.world.observed import Link
from polywan.kernel import pppoe

SYSFS: Final = Path("/sys/class")

_DEVTYPE: Final = re.compile(r"^DEVTYPE=(\w+)$", re.MULTILINE)
_MODEM_PORTS: Final = frozenset(["option", "option1", "qcserial", "sierra", "cdc_acm", "hso", "ipwireless"])
"""Drivers of serial ports that modems have."""


def read(links: Iterable[Link], sysfs: Path = SYSFS) -> Hardware:
    """Return what is known of the hardware; a file that cannot be read tells nothing."""
    ports = (port.name for port in _entries(sysfs / "tty", "tty[UAW]*") if _driver(port) in _MODEM_PORTS)
    return Hardware(
        devices={link.name: found for link in links if (found := _device(sysfs / "net", link)) is not None},
        sessions=pppoe.sessions(),
        l2tp=pppoe.l2tp(),
        serial=tuple(sorted(ports)),
    )


def _device(net: Path, link: Link) -> Device | None:
    folder = net / link.name
    # /sys may show another network namespace, with devices of the same names.
    if _text(folder / "ifindex").strip() != str(link.index):
        return None
    devtype = _DEVTYPE.search(_text(folder / "uevent"))
    speed = _text(folder / "speed").strip()
    return Device(
        driver=_driver(folder),
        devtype=devtype[1] if devtype else "",
        speed=int(speed) if speed.isdecimal() else 0,
    )


def _driver(folder: Path) -> str:
    """Return the driver of a device, or of the one above it: modems in cards have their network below."""
    for place in ("device/driver", "device/device/driver"):
        try:
            return (folder / place).readlink().name
        except OSError:
            continue
    return ""


def _entries(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")[:4096]
    except OSError:
        return ""
