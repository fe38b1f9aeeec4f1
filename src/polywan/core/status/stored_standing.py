"""What a daemon leaves to the next one of each uplink, so that the journal goes on: as a document, and back.

The file is the daemon's user's, and may be damaged: what makes no sense is as if it were not there.
"""

from math import isfinite
from typing import Final

from polywan.api.document import Document
from polywan.core.journal.changes import Standing
from polywan.core.journal.ends import NO_ENDS, Ends
from polywan.core.net import Family
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.link_events import ENDS_SPAN, STATE_SPAN
from polywan.core.status.rates import Counters
from polywan.core.status.tally import Bytes, Count

_TOO_MANY: Final = 1 << 60
"""Bytes that no device counts."""


class StoredStanding(Document):
    """What is recorded of an uplink.

    Attributes:
        uplink, interface, state, reason, ipv4, ipv6: as in an entry of the journal, where "up" is true.
        address, gateway, address6, gateway6: both ends.
        since, ends_since: since when its state, and its addresses and gateways, are these; Unix seconds.
        boot: names the boot of the machine since which devices count.
        ifindex, rx, tx: the device's counters; null without a device.
        earlier_rx, earlier_tx: what devices before it had counted.
        state_rx, state_tx, ends_rx, ends_tx: what the sum of both was at those times; null when that is not known.
    """

    uplink: str
    interface: str
    state: str
    reason: str
    ipv4: bool | None
    ipv6: bool | None
    address: str | None
    gateway: str | None
    address6: str | None
    gateway6: str | None
    since: float
    ends_since: float
    boot: str
    ifindex: int | None
    rx: int | None
    tx: int | None
    earlier_rx: int
    earlier_tx: int
    state_rx: int | None
    state_tx: int | None
    ends_rx: int | None
    ends_tx: int | None


def stored(standing: Standing, count: Count, boot: str, offset: float) -> StoredStanding:
    """Return what to keep of an uplink; `offset` is what added to monotonic seconds gives Unix time."""
    v4, v6 = (standing.ends.get(family, NO_ENDS) for family in (Family.V4, Family.V6))
    state, ends = (count.marks.get(span) for span in (STATE_SPAN, ENDS_SPAN))
    return StoredStanding(
        uplink=standing.uplink,
        interface=standing.interface,
        state=standing.state,
        reason=standing.reason,
        ipv4=standing.families.get(Family.V4),
        ipv6=standing.families.get(Family.V6),
        address=v4.address,
        gateway=v4.gateway,
        address6=v6.address,
        gateway6=v6.gateway,
        since=standing.since + offset,
        ends_since=standing.ends_since + offset,
        boot=boot,
        ifindex=count.now.ifindex if count.now else None,
        rx=count.now.rx if count.now else None,
        tx=count.now.tx if count.now else None,
        earlier_rx=count.earlier.rx,
        earlier_tx=count.earlier.tx,
        state_rx=state.rx if state else None,
        state_tx=state.tx if state else None,
        ends_rx=ends.rx if ends else None,
        ends_tx=ends.tx if ends else None,
    )


def restored(found: StoredStanding, offset: float) -> Standing:
    """Return what was recorded of an uplink; `offset` as in `stored`.

    Raises:
        ValueError: polywan cannot have written that.
    """
    if not (isfinite(found.since) and isfinite(found.ends_since)):
        raise ValueError("a time is no number")
    texts = (found.uplink, found.interface, found.address, found.gateway, found.address6, found.gateway6)
    if not all(text is None or text.isprintable() for text in texts):
        raise ValueError("a text is no name or address")
    families = {Family.V4: found.ipv4, Family.V6: found.ipv6}
    ends = {Family.V4: Ends(found.address, found.gateway), Family.V6: Ends(found.address6, found.gateway6)}
    return Standing(
        uplink=found.uplink,
        interface=found.interface,
        state=UplinkState(found.state),
        reason=found.reason,
        families={family: works for family, works in families.items() if works is not None},
        ends={family: each for family, each in ends.items() if each != NO_ENDS},
        since=found.since - offset,
        ends_since=found.ends_since - offset,
    )


def restored_count(found: StoredStanding, boot: str) -> Count | None:
    """Return what was counted of an uplink's device; None after another boot, without a device, and of nonsense."""
    if found.boot != boot or found.ifindex is None or found.rx is None or found.tx is None:
        return None
    earlier = Bytes(found.earlier_rx, found.earlier_tx)
    count = Count(now=Counters(found.ifindex, found.rx, found.tx), earlier=earlier)
    if not (_sensible(earlier, count.total) and _sensible(count.total, Bytes(_TOO_MANY, _TOO_MANY))):
        return None
    state, ends = _bytes(found.state_rx, found.state_tx), _bytes(found.ends_rx, found.ends_tx)
    marks = {span: mark for span, mark in ((STATE_SPAN, state), (ENDS_SPAN, ends)) if mark is not None}
    good = {span: mark for span, mark in marks.items() if _sensible(mark, count.total)}
    return Count(now=count.now, earlier=earlier, marks=good)


def _sensible(part: Bytes, whole: Bytes) -> bool:
    return 0 <= part.rx <= whole.rx and 0 <= part.tx <= whole.tx


def _bytes(rx: int | None, tx: int | None) -> Bytes | None:
    return None if rx is None or tx is None else Bytes(rx, tx)
