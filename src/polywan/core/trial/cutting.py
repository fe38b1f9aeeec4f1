"""Would a new configuration cut the administrator's own connection, or keep its client from coming again?"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from polywan.core.net import Family
from polywan.core.state.state import State
from polywan.core.trial.session import Session
from polywan.core.world.conntrack import Flow
from polywan.core.world.paths import NoPath

_TCP: Final = 6


def is_it(session: Session, flow: Flow) -> bool:
    """True for the tracked connection of a session; port forwards to this box count with what the client sees."""
    return (
        flow.protocol == _TCP
        and flow.client_port == session.peer_port
        and flow.family is session.family
        and ip_address(flow.client) == session.peer
        and flow.reply_source is not None
        and ip_address(flow.reply_source) == session.local
    )


def uplink_of(state: State, mark: int) -> str | None:
    """Return the uplink of a connection mark; None for connections that came in by none."""
    return next((name for name, number in state.known.numbers.items() if mark and number.mark == mark), None)


def cut(before: State, after: State, session: Session, mark: int) -> str:
    """Return why a configuration would cut a session, or keep its client from coming again; empty when it does not.

    A session that came in by no uplink is none of polywan's: what does not carry a mark goes as it always went.

    Args:
        before: what is in force.
        after: what would be, or is by now.
        session: the connection.
        mark: its connection mark.
    """
    name = uplink_of(before, mark)
    if name is None or before.known.config is None or after.known.config is None:
        return ""
    now = uplink_of(after, mark)
    was, uplink = before.known.config.uplinks[name], after.known.config.uplinks.get(now or name)
    if uplink is None:
        return f"{name}, by which it came in, is not in the new configuration"
    if uplink.interface != was.interface:
        return f"{name}, by which it came in, would be {uplink.interface} instead of {was.interface}"
    if now is None:
        return f"{name}, by which it came in, would have another mark, which its packets do not carry"
    if was.enabled and not uplink.enabled:
        return f"{name}, by which it came in, would be disabled"
    return _unreachable(before, after, (name, session.family), (now, session.family))


def _unreachable(before: State, after: State, was: tuple[str, Family], key: tuple[str, Family]) -> str:
    reached, had = after.decision.reach.get(key), before.decision.reach.get(was)
    if had is None or isinstance(had, NoPath):
        return ""
    if reached is None or isinstance(reached, NoPath):
        why = f" ({reached.reason})" if reached is not None else ""
        return f"{was[0]}, by which it came in, would have no IPv{int(key[1])} path{why}"
    if reached.via != had.via:
        return f"{was[0]}, by which it came in, would send its answers to {reached.via} instead of {had.via}"
    selection, old = after.decision.selection, before.decision.selection
    if selection is not None and old is not None and key in selection.dead and was not in old.dead:
        return f"{was[0]}, by which it came in, would count as down"
    return ""
