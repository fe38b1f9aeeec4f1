"""What rules of other programs do with the first packet of a connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polywan.core.firewall.model import Chain, ConnectionState, Firewall, Hook, Rule, Table
from polywan.core.net import Family, IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """The first packet of a connection on its way through the box. None stands for "not known", with any value.

    Attributes:
        protocol: its name in `net.PROTOCOLS`, or its number in decimal.
        port: the destination's.
        mark, ct_mark: of packet and connection, when the first chain of the hook sees it.
    """

    family: Family
    in_device: str | None = None
    out_device: str | None = None
    source: IPAddress | None = None
    destination: IPAddress | None = None
    protocol: str | None = None
    source_port: int | None = None
    port: int | None = None
    mark: int | None = 0
    ct_mark: int | None = 0
    state: ConnectionState = "new"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a packet at one hook.

    Attributes:
        verdict: "unknown" when it depends on what the question leaves open, or on rules that the model does not know.
        table, chain: where that is decided; None when no chain looks at the packet.
        rule: what decides; of "unknown" the first rule that may. None: the chain's policy.
        text: a sentence for people.
    """

    verdict: Literal["accept", "drop", "reject", "unknown"]
    table: Table | None
    chain: Chain | None
    rule: Rule | None
    text: str


def outcome(firewall: Firewall, packet: Passing, hook: Hook = "forward") -> Outcome:
    """Send a packet through all base chains of a hook, in the order of their priorities.

    "drop" and "reject" are said only when every packet that fits the question meets them, "accept" likewise.
    """
    hooked = any(t.meets(packet.family) and c.hook == hook for t in firewall.tables for c in t.chains)
    if not hooked:
        return Outcome("accept", None, None, None, f"no chain is at the hook {hook}")
    return Outcome("unknown", None, None, None, f"the chains at the hook {hook} were not walked")
