"""Refuse a name that the configuration in force does not have, and say which one it may have meant."""

from __future__ import annotations

from collections.abc import Iterable

from polywan.config.faults import absent
from polywan.core.errors import ControlError
from polywan.core.state.state import State


def unknown(what: str, name: str, known: Iterable[str]) -> ControlError:
    """Return the error of a name that nothing has.

    Args:
        what: the kind of thing that was asked for, such as "uplink".
        name: what the client called it.
        known: the names that there are.
    """
    return ControlError(absent(what, name, known), 404)


def demand_uplink(state: State, name: str) -> None:
    """Demand that the configuration in force has an uplink.

    Raises:
        ControlError: it has none of that name (404).
    """
    config = state.known.config
    if config is None or name not in config.uplinks:
        raise unknown("uplink", name, config.uplinks if config else ())
