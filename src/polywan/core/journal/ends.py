"""Both ends of a link, and how a change of them is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a link in one family, as text; None where there is none."""

    address: str | None
    gateway: str | None


NO_ENDS: Final = Ends(None, None)


def exchanged(before: Ends, after: Ends) -> str:
    """Say what became of an address and a gateway; empty when there is none now and was none."""
    if after.address is None:
        return "" if before.address is None else f"address {before.address} is gone"
    parts = [_changed("address", before.address, after.address)]
    if after.gateway is not None:
        parts.append(_changed("gateway", before.gateway, after.gateway))
    elif before.gateway is not None:
        parts.append(f"gateway {before.gateway} is gone")
    return ", ".join(parts)


def _changed(what: str, before: str | None, after: str) -> str:
    return f"{what} {after}" if before in (None, after) else f"{what} {before} → {after}"
