"""A packet that passes rules: what is known of it, and which conditions it meets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    Action,
    ActionOther,
    Choose,
    ConnectionState,
    Device,
    Direction,
    End,
    MarkIs,
    Match,
    Other,
    Port,
    Prefix,
    Protocol,
    Restore,
    Save,
    SetMark,
    State,
    Statistic,
    TcpFlags,
    Translate,
)
from polywan.core.net import Family, IPAddress

_ANY_PORT: Final = (0, 0xFFFF)
_OF_EXPLICIT_CONGESTION_NOTIFICATION: Final = frozenset({"ecn", "cwr"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """The first packet of a connection on its way through the box. None stands for "not known", with any value.

    Attributes:
        protocol: its name in `net.PROTOCOLS`, or its number in decimal.
        port: the destination's.
        mark, ct_mark: of packet and connection, when the first chain of the hook sees it.
        state: "new" of TCP is a SYN.
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


class Changed(NamedTuple):
    """What rules have changed of a packet so far; a mark that depends on what is not known is None.

    Attributes:
        translated: its addresses and ports are not those that it came with.
    """

    mark: int | None
    ct_mark: int | None
    translated: bool = False

    def after(self, actions: Iterable[Action]) -> Changed:
        """Return what is known after some actions."""
        now = self
        for action in actions:
            now = now._after(action)
        return now

    def _after(self, action: Action) -> Changed:
        match action:
            case SetMark():
                old = self.mark if action.of == "packet" else self.ct_mark
                new = _merged(old, ~action.mask & ALL_MARK_BITS, action.value, ALL_MARK_BITS)
                return self._replace(mark=new) if action.of == "packet" else self._replace(ct_mark=new)
            case Restore():
                return self._replace(mark=_merged(self.mark, action.keep, self.ct_mark, action.mask))
            case Save():
                return self._replace(ct_mark=_merged(self.ct_mark, action.keep, self.mark, action.mask))
            case Choose():
                return self._replace(mark=None) if action.of == "packet" else self._replace(ct_mark=None)
            case Translate():
                return self._replace(translated=True)
            case ActionOther(harmless=False):
                return self._replace(mark=None, ct_mark=None)
        return self


def joined(one: Changed | None, other: Changed | None) -> Changed | None:
    """Return what is known of a packet that took one of two ways; None for a way that no packet takes."""
    if one is None or other is None:
        return other if one is None else one
    return Changed(
        one.mark if one.mark == other.mark else None,
        one.ct_mark if one.ct_mark == other.ct_mark else None,
        one.translated or other.translated,
    )


def meets(packet: Passing, changed: Changed, match: Match, *, tracked: bool = True) -> bool | None:
    """Return whether a packet meets a condition; None when that is not known.

    Args:
        packet: as it came.
        changed: what became of it since.
        match: the condition.
        tracked: False ahead of connection tracking.
    """
    found: bool | None
    match match:
        case Prefix():
            return _in_prefix(packet, changed, match)
        case TcpFlags():
            return _has_flags(packet, match)
        case Device():
            found = _by_device(packet.in_device if match.end == "in" else packet.out_device, match.names)
        case State():
            found = packet.state in match.states if tracked else None
        case Direction():
            found = match.direction == "original" if tracked and packet.state == "new" else None
        case MarkIs():
            mark = changed.mark if match.of == "packet" else changed.ct_mark
            found = None if mark is None else mark & match.mask == match.value
        case Protocol():
            found = None if packet.protocol is None else packet.protocol in match.names
        case Port():
            port = None if changed.translated else packet.source_port if match.end == "source" else packet.port
            found = _in_ranges(port, match.ranges)
        case Statistic():
            found = match.probability == 1 if match.probability in (0, 1) else None
        case Other():
            return None
    return None if found is None else found is not match.invert


def _merged(kept: int | None, kept_bits: int, new: int | None, new_bits: int) -> int | None:
    """Return ``(kept & kept_bits) ^ (new & new_bits)``; None when it depends on what is not known."""
    if (kept is None and kept_bits) or (new is None and new_bits):
        return None
    return ((kept or 0) & kept_bits) ^ ((new or 0) & new_bits)


def _by_device(device: str | None, names: tuple[str, ...]) -> bool | None:
    if "*" in names:
        return True
    if device is None:
        return None if names else False
    return any(device.startswith(name[:-1]) if name[-1:] == "*" else device == name for name in names)


def _address(packet: Passing, end: End) -> IPAddress | None:
    return packet.source if end == "source" else packet.destination


def _in_prefix(packet: Passing, changed: Changed, match: Prefix) -> bool | None:
    if any(network.version != packet.family for network in match.networks):
        return False
    if not match.networks or any(network.prefixlen == 0 for network in match.networks):
        return bool(match.networks) is not match.invert
    address = _address(packet, match.end)
    if address is None or changed.translated:
        return None
    return any(address in network for network in match.networks) is not match.invert


def _has_flags(packet: Passing, match: TcpFlags) -> bool | None:
    if packet.protocol is None:
        return None
    if packet.protocol != "tcp":
        return False
    if packet.state != "new" or match.examined & _OF_EXPLICIT_CONGESTION_NOTIFICATION:
        return None
    return ({"syn"} & match.examined == match.set_flags) is not match.invert


def _in_ranges(port: int | None, ranges: tuple[tuple[int, int], ...]) -> bool | None:
    if _ANY_PORT in ranges:
        return True
    if port is None:
        return None if ranges else False
    return any(first <= port <= last for first, last in ranges)
