"""Uplinks that are shaped, and what their queues do, in the lab."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Any, Final

from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS

ROOT: Final = "6000:"
"""Handle of a root of ours."""


def configuration(lab: Lab, shaping: str, shaped: Collection[int] = (1,), more: str = "") -> str:
    """Return a configuration in which some uplinks have these further lines, their own tables among them."""
    targets = ", ".join(f'"{t}"' for family in lab.topology.families for t in SERVERS[family])
    lines = ["[global]", "forwarding = true", more, "[health]", f"targets = [{targets}]", 'hold_down = "1s"']
    for uplink in lab.topology.uplinks:
        lines += [f"[uplinks.{uplink.name}]", f'interface = "{uplink.interface}"']
        lines += [shaping] if uplink.number in shaped else []
    return "\n".join(lines) + "\n"


def bandwidth(down: str, up: str, algorithm: str = "cake") -> str:
    """Return the lines of a shaped uplink."""
    return f'bandwidth = {{down = "{down}", up = "{up}"}}\nshaping = {{algorithm = "{algorithm}"}}'


def planned(lab: Lab, daemon: DaemonProcess) -> subprocess.CompletedProcess[str]:
    """Run `polywan plan` where the daemon is."""
    argv = [sys.executable, "-m", "polywan", "plan", "--config", str(daemon.config), "--state-dir", str(daemon.state)]
    return lab.router.run([*argv, "--runtime-dir", str(daemon.runtime)], check=False)


def qdiscs(namespace: Namespace, device: str) -> list[dict[str, Any]]:
    """Return what tc(8) shows of a device; nothing when there is no such device."""
    shown = namespace.run(["tc", "-s", "-j", "qdisc", "show", "dev", device], check=False)
    found: list[dict[str, Any]] = json.loads(shown.stdout) if shown.returncode == 0 and shown.stdout.strip() else []
    return found


def kinds(namespace: Namespace, device: str) -> list[tuple[str, str]]:
    """Return kind and handle of what is at a device."""
    return sorted((found["kind"], found["handle"]) for found in qdiscs(namespace, device))


def root_of(namespace: Namespace, device: str) -> tuple[str, str]:
    """Return kind and handle of a device's root."""
    return next(((q["kind"], q["handle"]) for q in qdiscs(namespace, device) if q.get("root")), ("", ""))


def is_shaped(lab: Lab, number: int = 1, kind: str = "cake") -> bool:
    """Tell whether packets of both directions of an uplink pass a queue of ours."""
    device, ifb = lab.topology.uplink(number).interface, f"pw-ifb{number}"
    roots = root_of(lab.router, device), root_of(lab.router, ifb)
    return roots == ((kind, ROOT), (kind, ROOT)) and leads_to(lab, device) == ifb


def leads_to(lab: Lab, device: str) -> str:
    """Return the device that takes what comes in by another one; empty without one."""
    shown = lab.router.run(["tc", "filter", "show", "dev", device, "ingress"], check=False).stdout
    found = re.search(r"Egress Redirect to device (\S+)\)", shown)
    return found[1] if found else ""


def bytes_sent(namespace: Namespace, device: str) -> int:
    """Return the bytes that a device has sent."""
    listed = json.loads(namespace.run(["ip", "-s", "-j", "link", "show", "dev", device]).stdout)
    return int(listed[0]["stats64"]["tx"]["bytes"])


async def rate(namespace: Namespace, device: str, seconds: float) -> float:
    """Return the bits that a device sends each second, measured over so many."""
    before, began = await asyncio.to_thread(bytes_sent, namespace, device), time.monotonic()
    await asyncio.sleep(seconds)
    after = await asyncio.to_thread(bytes_sent, namespace, device)
    return 8 * (after - before) / (time.monotonic() - began)


async def round_trip(lab: Lab, count: int = 15) -> float:
    """Return the median of round trips from a client to a server, seconds; those that are lost take 5 s."""
    words = ["ping", "-n", "-c", str(count), "-i", "0.2", "-W", "5", str(SERVERS[Family.V4][0])]
    shown = await asyncio.to_thread(lab.client.run, words, check=False)
    found = [float(ms) / 1000 for ms in re.findall(r"time=([0-9.]+) ms", shown.stdout)]
    return statistics.median([*found, *[5.0] * (count - len(found))])
