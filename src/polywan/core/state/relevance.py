"""Which notifications are about devices that no decision looks at: containers, tunnels and ports of somebody else.

What is about the others leads to a decision, or to a read, at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.core.state import rerouting
from polywan.core.state.events import AddressLost, Event, ForeignStateChanged, LinkChanged, LinkRemoved
from polywan.core.state.state import State
from polywan.core.world.observed import Link, Observed

_LENDERS: Final = frozenset({"bridge", "dummy"})
"""Kinds of links that rules name, or whose addresses uplinks may borrow."""


def foreign(state: State, event: Event) -> bool:
    """Tell whether a notification is about a device that is no uplink's, and that nothing leads by."""
    observed, config = state.known.observed, state.known.config
    if observed is None or config is None:
        return False
    match event:
        # A program that sets the rate of its queue many times a second must not have all read as often.
        case ForeignStateChanged("filter" | "elements" | "qdisc"):
            return True
        case LinkChanged(link):
            name, kind, index = link.name, link.kind, link.index
        case LinkRemoved(name) | ForeignStateChanged(link=str(name)) | AddressLost(link=name):
            known = observed.links.get(name)
            kind, index = ("", 0) if known is None else (known.kind, known.index)
        case _:
            return False
    if name == "lo" or kind in _LENDERS or name in observed.leading:
        return False
    devices = {uplink.interface for uplink in config.uplinks.values()}
    return name not in devices and index not in {link.index for link in _above(observed, devices)}


def counts(state: State, event: Event) -> bool:
    """Tell whether anything but the fast path depends on what changed, or whether the fast path is allowed."""
    match event:
        case ForeignStateChanged("elements"):
            return False
        case ForeignStateChanged("filter"):
            return rerouting.wanted(state)
        case _:
            return True


def _above(observed: Observed, devices: set[str]) -> Iterator[Link]:
    """Yield the links that uplinks' devices belong to."""
    for device in devices:
        link = observed.links.get(device)
        if link is not None and link.master:
            yield from observed.masters_of(link)
