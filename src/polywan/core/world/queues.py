"""Queueing disciplines as the kernel shows them (tc(8)): ours as trees, and what others have put in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

STAMP: Final = 0x6000
"""Major number of our root handles; the other handles of our trees follow it.

tc(8) shows ``6000:``. What the kernel makes by itself has 0, what it numbers for others begins at 8000.
"""

ROOT: Final = 0xFFFF_FFFF
"""Parent of a device's root queueing discipline."""

IFB_GROUP: Final = STAMP << 16
"""Group of our ifb devices (ip-link(8)), their stamp: of a device, the kernel takes it in the request that makes it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a tree: a queueing discipline, a class of it, or a filter that chooses a class.

    Attributes:
        kind: of the discipline, "class" or "u32".
        handle: its number, major in the upper half; a filter's counts within its protocol.
        parent: the number of what it belongs to, or `ROOT`.
        options: those that we set, as name and number.
    """

    kind: str
    handle: int
    parent: int
    options: tuple[tuple[str, int], ...] = ()

    @property
    def place(self) -> tuple[str, int, int, int]:
        """What tells it from others of its tree, whatever its options are."""
        return self.kind, self.parent, dict(self.options).get("protocol", 0), self.handle


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounters:
    """What a root queueing discipline has counted: bytes sent, packets dropped, and bytes that wait now."""

    sent: int = 0
    drops: int = 0
    backlog: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceQueues:
    """The queues of one device.

    Attributes:
        index: of the device; one that was made anew has another.
        tree: ours at the root; of an ifb of ours, whatever is there.
        foreign_root: another program's root, as "fq_codel 8001:"; empty for ours, and for the kernel's default.
        redirect: the device to which our ingress discipline sends all packets; empty when it sends them nowhere, None
            when there is none.
        foreign_ingress: another program's, "ingress" or "clsact"; empty for ours and for none.
        ingress_chain: another program's nftables chain at the hook ingress, in words; empty for none.
        counters: of our root.
    """

    index: int
    tree: frozenset[Part] = frozenset()
    foreign_root: str = ""
    redirect: str | None = None
    foreign_ingress: str = ""
    ingress_chain: str = ""
    counters: QueueCounters = field(default=QueueCounters(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queues:
    """The queues of all devices.

    Attributes:
        devices: by name.
        ifbs: our ifb devices, and whether they are up.
        lacking: kinds of disciplines, devices and actions that are wanted and that the kernel does not have.
    """

    devices: Mapping[str, DeviceQueues] = field(default_factory=dict)
    ifbs: Mapping[str, bool] = field(default_factory=dict)
    lacking: frozenset[str] = frozenset()

    @property
    def ours(self) -> bool:
        """True when anything of ours is there."""
        return bool(self.ifbs) or any(d.tree or d.redirect is not None for d in self.devices.values())
