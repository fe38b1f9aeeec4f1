"""Entries of the journal as documents, and what hooks are told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from polywan.api.events import LinkEvent
from polywan.core.journal.changes import Change, Standing, What
from polywan.core.journal.ends import NO_ENDS, Ends
from polywan.core.net import Family
from polywan.core.status.tally import Bytes
from polywan.core.status.times import iso
from polywan.core.words import printable

STATE_SPAN: Final = "state"
ENDS_SPAN: Final = "ends"
"""Names of the two spans of an uplink: since its state changed, and since its addresses did (`tally.py`)."""

MOST_REASON: Final = 500
"""Characters of a reason that are kept: the longest of polywan's own has some 200, what programs say may have more."""


def spans_of(change: Change) -> tuple[str, tuple[str, ...]]:
    """Return the span that a change ends, and all those that begin with it."""
    if change.what in (What.RENAMED, What.QUOTA):
        return "", ()
    since, ends_since = (change.after.since, change.after.ends_since) if change.after else (change.at, change.at)
    begun = {STATE_SPAN: since, ENDS_SPAN: ends_since}
    ended = ENDS_SPAN if change.what is What.ADDRESS else STATE_SPAN
    return ended, tuple(span for span, at in begun.items() if at == change.at)


def link_event(number: int, change: Change, unix: float, moved: Bytes | None) -> LinkEvent:
    """Return the entry of a change.

    Args:
        number: its number.
        change: the change.
        unix: when it happened, Unix seconds.
        moved: bytes that went by its device while what was before lasted; None when that is not known.
    """
    standing, before, after = change.standing, change.before, change.after
    old, new = before.ends if before else {}, after.ends if after else {}
    return LinkEvent(
        id=number,
        time=iso(unix),
        uplink=standing.uplink,
        interface=standing.interface,
        event=change.what,
        state=after.state if after else None,
        previous_state=before.state if before else None,
        ipv4=_works(after, Family.V4),
        ipv6=_works(after, Family.V6),
        previous_ipv4=_works(before, Family.V4),
        previous_ipv6=_works(before, Family.V6),
        reason=printable(change.reason)[:MOST_REASON],
        lasted_s=None if change.lasted is None else round(change.lasted, 3),
        rx_bytes=moved.rx if moved else None,
        tx_bytes=moved.tx if moved else None,
        address=_ends(new, Family.V4).address,
        gateway=_ends(new, Family.V4).gateway,
        address6=_ends(new, Family.V6).address,
        gateway6=_ends(new, Family.V6).gateway,
        previous_address=_ends(old, Family.V4).address,
        previous_gateway=_ends(old, Family.V4).gateway,
        previous_address6=_ends(old, Family.V6).address,
        previous_gateway6=_ends(old, Family.V6).gateway,
    )


def _works(standing: Standing | None, family: Family) -> str | None:
    works = standing.families.get(family) if standing else None
    return None if works is None else "up" if works else "down"


def _ends(ends: Mapping[Family, Ends], family: Family) -> Ends:
    return ends.get(family, NO_ENDS)


def variables(entry: LinkEvent, hook: str, serving: Sequence[str], table: int | None) -> dict[str, str]:
    """Return the environment that tells a hook of an entry; what is not known is empty.

    Texts of others come as they are but for control characters: a shell must quote them, as any variable.

    Args:
        entry: what happened.
        hook: the key of [hooks].
        serving: the uplinks that serve now.
        table: number of the uplink's routing table; None once it is not in the file any more.
    """
    found = {
        "HOOK": hook,
        "TIME": entry.time,
        "UPLINK": entry.uplink,
        "INTERFACE": entry.interface,
        "TABLE": table,
        "STATE": entry.state,
        "PREVIOUS_STATE": entry.previous_state,
        "IPV4": entry.ipv4,
        "IPV6": entry.ipv6,
        "REASON": entry.reason,
        "ADDRESS": entry.address,
        "GATEWAY": entry.gateway,
        "ADDRESS6": entry.address6,
        "GATEWAY6": entry.gateway6,
        "PREVIOUS_ADDRESS": entry.previous_address,
        "PREVIOUS_GATEWAY": entry.previous_gateway,
        "PREVIOUS_ADDRESS6": entry.previous_address6,
        "PREVIOUS_GATEWAY6": entry.previous_gateway6,
        "DURATION": None if entry.lasted_s is None else int(entry.lasted_s),
        "BYTES_SENT": entry.tx_bytes,
        "BYTES_RECEIVED": entry.rx_bytes,
        "SERVING": " ".join(serving),
    }
    return {name: "" if value is None else printable(str(value)) for name, value in found.items()}
