"""What an order to an uplink would do now: the engine itself is asked, with a state that is thrown away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias, get_args

from polywan.api.views.effects import OrderEffect
from polywan.core.engine import step as engine
from polywan.core.net import Family
from polywan.core.policy.operator import DEADLINE, Verb
from polywan.core.policy.selection import unserved_policies
from polywan.core.resolved import Resolved
from polywan.core.state.effects import Effect, ForgetAll, ReleaseConnections
from polywan.core.state.events import OperatorCommand, Tick
from polywan.core.state.state import State
from polywan.core.status.document import share_of_uplink
from polywan.core.words import counted, lasted

OrderWord: TypeAlias = Literal["disable", "drain", "enable", "test"]
ORDER_WORDS: Final[tuple[OrderWord, ...]] = get_args(OrderWord)


def effect(
    state: State, name: str, word: OrderWord, flows: Mapping[Family, int], now: float, deadline: float = DEADLINE
) -> OrderEffect:
    """Return what an order to an uplink of the configuration would do now.

    Args:
        state: the engine's state; nothing of it changes.
        name: the uplink.
        word: the order.
        flows: connections that it has, by family.
        now: monotonic seconds.
        deadline: seconds that `drain` gives connections.
    """
    after, ended = state, frozenset[Family]()
    if word != "test":
        after, ended = _rehearsed(state, name, OperatorCommand(name, Verb(word), deadline), now)
    config = state.known.config
    assert config is not None  # noqa: S101 - the uplink is in it
    number = sum(count for family, count in flows.items() if family in ended)
    before = state.known.memory.orders.get(name)
    changes = after.known.memory.orders.get(name) != before
    shares_before, shares_after = _shares(state, config), _shares(after, config)
    lacking = {} if after.decision.selection is None else unserved_policies(config, after.decision.selection)
    return OrderEffect(
        uplink=name,
        order=word,
        undo=None if not changes else Verb.ENABLE if before is None else before.verb,
        connections=sum(flows.values()),
        ended=number,
        shares_before=shares_before,
        shares_after=shares_after,
        unserved=tuple(config.titles[policy] for policy in lacking),
        text=(
            *_said(config, name, word, deadline, changes=changes),
            *_connections(word, sum(flows.values()), number, changes=changes),
            *_moved(shares_before, shares_after),
            *lacking.values(),
        ),
    )


def _rehearsed(state: State, name: str, event: OperatorCommand, now: float) -> tuple[State, frozenset[Family]]:
    """Return the state after an order, and the families in which the uplink's connections are ended at once."""
    after, first = engine.step(state, event, now)
    after, then = engine.step(after, Tick(), now)
    mark = state.known.numbers[name].mark
    return after, frozenset(family for one in (*first, *then) if (family := _ends(one, mark)) is not None)


def _ends(one: Effect, mark: int) -> Family | None:
    """Return in which family an effect ends the connections of a mark, None when it does not."""
    match one:
        case ReleaseConnections() if one.mark == mark and one.tcp and not one.vanished:
            return one.family
        case ForgetAll() if one.mark == mark:
            return one.family
        case _:
            return None


def _shares(state: State, config: Resolved) -> dict[str, float]:
    return {name: share_of_uplink(state.decision.selection, "default", name) for name in config.uplinks}


def _said(config: Resolved, name: str, word: OrderWord, deadline: float, *, changes: bool) -> Iterator[str]:
    """Yield what becomes of the uplink."""
    if word == "test":
        yield f"every probe and check of {name} is made now; nothing else changes"
    elif not changes:
        yield f"nothing changes: {name} {'is in use' if word == 'enable' else f'has that order already: {word}'}"
    elif word == "disable":
        yield f"{name} gets no new connections and is not probed until `polywan uplink enable {name}`"
    elif word == "drain":
        yield f"{name} gets no new connections until `polywan uplink enable {name}`; it is still probed"
    else:
        yield f"{name} is back in use as soon as it answers"
    if word != "test" and not config.uplinks[name].enabled:
        yield f"{name} has enabled = false in the configuration, which takes precedence"
    if word == "drain" and changes and deadline:
        yield f"connections that do not pause end after {lasted(deadline)}"


def _connections(word: OrderWord, number: int, ended: int, *, changes: bool) -> Iterator[str]:
    """Yield what becomes of the uplink's connections."""
    if not changes or word == "enable":
        return
    if not number:
        yield "it has no connections"
    elif ended:
        yield f"{counted(ended, 'connection')} of {number} end at once"
    elif word == "disable":
        yield f"{counted(number, 'connection')}: they stay as long as it has a path"
    else:
        yield f"{counted(number, 'connection')}: none ends at once"


def _moved(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[str]:
    for name, share in after.items():
        was, will_be = round(100 * before[name]), round(100 * share)
        if was != will_be:
            yield f"new connections of policy default by {name}: {was} % before, {will_be} % then"
