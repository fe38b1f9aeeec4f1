"""A router with as many uplinks as wanted, and one namespace beyond them: the control plane needs no more.

::

    lan0 router wan1 ── p1 outside      every uplink has a cable of its own, so that each carrier can be cut alone
                wan2 ── p2              outside is every gateway and every health target at once

The lab's own networks end at 62 uplinks and share one cable above eight; this one carries no forwarded traffic.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polywan.core.errors import ControlError
from polywan.core.net import FAMILIES, Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace, ip_batch
from polywan.lab.recipe import NO_DAD, PROVIDER_SETTINGS
from polywan.lab.sandbox import LabError
from polywan.lab.topology import SERVERS

MOST: Final = 200
"""Uplinks the address plan has room for."""

DEFAULT_MASK_HOLDS: Final = 62
WIDE_MASK: Final = 0xFF00
"""`mark_mask` for more uplinks than the default mask tells apart."""

# The two ends of a cable need different indices: see the note in polywan.lab.recipe.
_NEAR, _FAR = 1000, 3000


def installed() -> list[str]:
    """Return the command as people call it, or the module where it is not installed beside this interpreter."""
    script = Path(sys.executable).with_name("polywan")
    return [str(script)] if script.exists() else [sys.executable, "-m", "polywan"]


@dataclass(frozen=True, slots=True)
class World:
    """A standing router and what is beyond it."""

    uplinks: int
    router: Namespace
    outside: Namespace

    def cut(self, number: int) -> float:
        """Take an uplink's far end down, so that it loses its carrier; return the monotonic time when it was done."""
        return self.outside.set_link(f"p{number}", up=False)

    def restore(self, number: int) -> float:
        """Bring the carrier back; return the monotonic time when it was done."""
        moment = self.outside.set_link(f"p{number}", up=True)
        # The kernel has taken it away (keep_addr_on_down is about others), and looks for no neighbour without it.
        self.outside.ip([f"address replace fe80::1/64 dev p{number} nodad"])
        return moment


@contextmanager
def standing(uplinks: int, name: str = "bench") -> Iterator[World]:
    """Build a world of that many uplinks, both families, and take it down afterwards.

    Raises:
        LabError: the kernel or a tool refused.
    """
    if not 1 <= uplinks <= MOST:
        raise ValueError(f"1 to {MOST} uplinks, not {uplinks}")
    world = World(uplinks, Namespace(name), Namespace(f"{name}-outside"))
    both = (world.router, world.outside)
    try:
        for namespace in both:
            namespace.create()
        world.router.sysctl(NO_DAD)
        world.outside.sysctl(PROVIDER_SETTINGS)
        ip_batch(_cables(world))
        world.outside.ip(_outside(uplinks))
        world.router.ip(_router(uplinks))
        yield world
    finally:
        ip_batch(f"netns del {namespace.name}" for namespace in both if namespace.path.exists())


def configuration(
    uplinks: int, *, weights: Mapping[int, int] | None = None, health: Mapping[str, str | int] | None = None
) -> str:
    """Return the daemon's file for such a router: weight 1 but for `weights`, and `health` over the defaults."""
    targets = ", ".join(f'"{address}"' for family in FAMILIES for address in SERVERS[family])
    lines = ["[global]", "forwarding = true"]
    if uplinks > DEFAULT_MASK_HOLDS:
        lines.append(f"mark_mask = {WIDE_MASK:#x}")
    lines += ["", "[health]", f"targets = [{targets}]"]
    lines += [
        f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in (health or {}).items()
    ]
    for number in range(1, uplinks + 1):
        weight = (weights or {}).get(number, 1)
        lines += ["", f"[uplinks.isp{number}]", f'interface = "wan{number}"', f"weight = {weight}"]
    return "\n".join(lines) + "\n"


def until_up(daemon: DaemonProcess, uplinks: int, timeout: float = 30.0) -> None:
    """Wait until every uplink is up.

    Raises:
        LabError: time is up.
    """
    deadline, states = time.monotonic() + timeout, ["unknown"]
    while time.monotonic() < deadline:
        try:
            states = [uplink.state for uplink in daemon.status().uplinks]
        except ControlError:
            states = ["no answer"]
        if states == ["up"] * uplinks:
            return
        time.sleep(0.05)
    raise LabError(f"not every uplink is up after {timeout:.0f} s: {', '.join(states)}")


def _cables(world: World) -> Iterator[str]:
    router, outside = world.router.name, world.outside.name
    yield f"link add lan0 netns {router} index 50 type veth peer name lan netns {outside} index 60"
    for n in range(1, world.uplinks + 1):
        far = f"p{n} netns {outside} index {_FAR + n}"
        yield f"link add wan{n} netns {router} index {_NEAR + n} type veth peer name {far}"


def _outside(uplinks: int) -> Iterator[str]:
    yield "link set lan addrgenmode none up"
    for n in range(1, uplinks + 1):
        yield f"link set p{n} addrgenmode none up"
        yield f"address add fe80::1/64 dev p{n} nodad"
        yield f"address add 100.64.{n}.1/24 dev p{n}"
        yield f"address add 2001:db8:64:{n}::1/64 dev p{n} nodad"
    for family in FAMILIES:
        yield from (f"address add {address} dev lo{_nodad(family)}" for address in SERVERS[family])


def _router(uplinks: int) -> Iterator[str]:
    yield "link set lan0 addrgenmode none up"
    yield "address add 192.168.15.1/24 dev lan0"
    yield "address add 2001:db8:15::1/64 dev lan0 nodad"
    for n in range(1, uplinks + 1):
        yield f"link set wan{n} addrgenmode none up"
        # Neighbour solicitations to a group come from link-local addresses (RFC 4861): without one none is sent.
        yield f"address add fe80::2:{n}/64 dev wan{n} nodad"
        yield f"address add 100.64.{n}.2/24 dev wan{n}"
        yield f"address add 2001:db8:64:{n}::2/64 dev wan{n} nodad"
        yield f"route add default via 100.64.{n}.1 dev wan{n} metric {100 + n}"
        yield f"route add {Family.V6.default} via 2001:db8:64:{n}::1 dev wan{n} metric {1024 + n}"


def _nodad(family: Family) -> str:
    return " nodad" if family is Family.V6 else ""
