"""What shaping wants of the kernel, and what keeps it from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from polywan.config import Uplink
from polywan.config.model.shaping import IFB_PREFIX, Shaping
from polywan.core.identity import Same
from polywan.core.resolved import Resolved
from polywan.core.shaping.trees import Direction, tree, wanted_kinds
from polywan.core.words import listed
from polywan.core.world.observed import Observed
from polywan.core.world.queues import DeviceQueues, Part, Queues

INCOMING: Final = frozenset({"ifb", "ingress", "mirred"})
"""What incoming packets need beside a tree: a device that they leave by, and what sends them there."""

_OPTIONS: Final = {
    "cake": "CONFIG_NET_SCH_CAKE, module sch_cake",
    "fq_codel": "CONFIG_NET_SCH_FQ_CODEL, module sch_fq_codel",
    "htb": "CONFIG_NET_SCH_HTB, module sch_htb",
    "prio": "CONFIG_NET_SCH_PRIO, module sch_prio",
    "ifb": "CONFIG_IFB, module ifb",
    "ingress": "CONFIG_NET_SCH_INGRESS, module sch_ingress",
    "mirred": "CONFIG_NET_ACT_MIRRED, module act_mirred",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapers:
    """All that shaping wants of the kernel.

    Attributes:
        ifbs: devices that incoming packets pass.
        trees: what is at the root of each device, parents first.
        redirects: to which of the ifbs a device sends what comes in.
    """

    ifbs: frozenset[str] = frozenset()
    trees: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    redirects: Mapping[str, str] = field(default_factory=dict)


NONE_WANTED: Final = Shapers()


def shaped(config: Resolved) -> dict[str, tuple[Uplink, Shaping]]:
    """Return the uplinks that are to be shaped; those that are not enabled are left as they are."""
    return {name: (u, u.shaping) for name, u in config.uplinks.items() if u.shaping is not None and u.enabled}


def kinds_of(config: Resolved) -> frozenset[str]:
    """Return all that the kernel needs for this configuration; empty when nothing is to be shaped."""
    found = shaped(config)
    trees = frozenset(kind for _, shaping in found.values() for kind in wanted_kinds(shaping))
    return trees | INCOMING if found else trees


def build_shapers(config: Resolved, observed: Observed, queues: Queues | None) -> Shapers:
    """Return what the kernel should hold.

    A device whose queues are not known yet, because it was just made, gets nothing before the next read.

    Args:
        config: the file.
        observed: the world.
        queues: what is there; None when nobody has looked.
    """
    wanted = shaped(config)
    if not wanted or queues is None:
        return NONE_WANTED
    devices = (observed.links.get(uplink.interface) for uplink, _ in wanted.values())
    indexes = tuple(None if link is None else link.index for link in devices)
    return _built(Same(config), Same(queues), indexes)


@lru_cache(maxsize=4)  # most decisions are about the same file and the same queues
def _built(file: Same[Resolved], there: Same[Queues], indexes: tuple[int | None, ...]) -> Shapers:
    config, queues = file.value, there.value
    ifbs: set[str] = set()
    trees: dict[str, tuple[Part, ...]] = {}
    redirects: dict[str, str] = {}
    for (name, (uplink, shaping)), index in zip(shaped(config).items(), indexes, strict=True):
        known, ifb = _known(uplink, index, queues), ifb_of(config, name)
        if uplink.bandwidth is None:
            continue
        if known is not None and not obstacle(uplink, shaping, queues, Direction.UP, ifb):
            trees[uplink.interface] = tree(shaping, uplink.bandwidth.up, Direction.UP)
        # It stays while its uplink is away: a new device of the uplink finds it there.
        blocked = obstacle(uplink, shaping, queues, Direction.DOWN, ifb)
        if (known is not None or ifb in queues.ifbs) and not blocked:
            ifbs.add(ifb)
            trees[ifb] = tree(shaping, uplink.bandwidth.down, Direction.DOWN)
            redirects |= {uplink.interface: ifb} if known is not None else {}
    return Shapers(ifbs=frozenset(ifbs), trees=trees, redirects=redirects)


def ifb_of(config: Resolved, name: str) -> str:
    """Return the ifb device of an uplink; it has the uplink's number, which the uplink keeps."""
    return f"{IFB_PREFIX}{config.numbers[name].id}"


def _known(uplink: Uplink, index: int | None, queues: Queues) -> DeviceQueues | None:
    known = queues.devices.get(uplink.interface)
    return known if known is not None and known.index == index else None


def obstacle(uplink: Uplink, shaping: Shaping, queues: Queues, direction: Direction, ifb: str) -> str:
    """Say why packets of one direction are not shaped, and what to do; empty when nothing is in the way."""
    known = queues.devices.get(uplink.interface)
    kinds = wanted_kinds(shaping)
    other = ", or choose another algorithm" if kinds & queues.lacking else ""
    needed = kinds | INCOMING if direction is Direction.DOWN else kinds
    if lacking := sorted(needed & queues.lacking):
        parts = [f"{kind} ({_OPTIONS[kind]})" for kind in lacking]
        return f"this kernel has no {listed(parts)}; load {'it' if len(lacking) == 1 else 'them'}{other}"
    if direction is Direction.UP:
        root = known.foreign_root if known is not None else ""
        return _stays(root, f"tc qdisc del dev {uplink.interface} root") if root else ""
    if ifb in queues.devices and ifb not in queues.ifbs:
        return _stays(f"device {ifb}", f"ip link del {ifb}")
    if known is not None and known.ingress_chain:
        return (
            f"another program's {known.ingress_chain} (nftables) looks at it, and would see none of it any more; move "
            "its rules to a chain of family inet at the hook prerouting, or remove shaping"
        )
    kind = known.foreign_ingress if known is not None else ""
    return _stays(kind, f"tc qdisc del dev {uplink.interface} {kind}") if kind else ""


def _stays(there: str, remedy: str) -> str:
    return f"another program's {there} is there, and stays; remove it ({remedy}), or remove shaping"


def obstacles(config: Resolved, queues: Queues | None) -> Iterator[str]:
    """Yield one sentence for each direction of each uplink that cannot be shaped."""
    for name, (uplink, shaping) in shaped(config).items() if queues is not None else ():
        for direction in Direction:
            if queues is not None and (reason := obstacle(uplink, shaping, queues, direction, ifb_of(config, name))):
                what = "leaves" if direction is Direction.UP else "comes in"
                yield f"uplink {name}: what {what} by {uplink.interface} is not shaped: {reason}"


def shared_rates(config: Resolved, observed: Observed) -> Iterator[str]:
    """Yield one sentence for each device that is shaped and carries other devices, whose packets share its rate."""
    for name, (uplink, _) in shaped(config).items():
        if (link := observed.links.get(uplink.interface)) is None:
            continue
        carried = sorted(other.name for other in observed.links.values() if other.up and other.parent == link.index)
        carried += ["a PPPoE session"] if link.name in observed.sessions else []
        if carried:
            yield (
                f"uplink {name}: {link.name} also carries {listed(carried)}, and all of it shares the rate of {name}; "
                "shape the devices that lead to the providers, and not one that carries others"
            )
