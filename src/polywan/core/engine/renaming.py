"""An uplink is its device: what is known follows the device when a file gives it another name.

Connections carry the number of the uplink they are on, and the number stands for a device. So another name for the
same device changes nothing, in whatever way names are exchanged; and a name that means another device now inherits
nothing of what was known under it: that one starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

from polywan.config import Config
from polywan.core.evolve import replace
from polywan.core.health.bad_targets import BadTargets
from polywan.core.health.layers import Checks, LayerState
from polywan.core.health.rounds import ProbeState
from polywan.core.net import Family
from polywan.core.policy.selection import Choice, Selection
from polywan.core.state.logged import Logged
from polywan.core.state.memory import Memory
from polywan.core.state.state import State
from polywan.core.world.paths import UplinkFamily
from polywan.core.world.shared_device import inherited, places

T = TypeVar("T")

DEVICE: Final = "device:"
"""Prefix of the name under which the number of a device without an uplink is remembered; no uplink can have it."""

Names: TypeAlias = Mapping[str, str]
"""What names known so far have become; those that are absent stay."""


def renamed(memory: Memory, config: Config) -> Names:
    """Return the names that change for `config`: where each name that is remembered has to go.

    A memory of an older version does not know devices: then names stay.
    """
    heirs = inherited(memory.devices, config, _routers(memory))
    names = {holder: heir for holder, heir in heirs.items() if holder != heir}
    taken = {holder: place for holder, place in memory.devices.items() if holder in config.uplinks}
    return names | {holder: DEVICE + place for holder, place in taken.items() if holder not in heirs}


def _routers(memory: Memory) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for (name, _), via in memory.gateways.items():
        found[name] = found.get(name, frozenset()) | {str(via)}
    return found


def renamings(memory: Memory, config: Config) -> Iterator[str]:
    """Say what becomes of names, for people; `memory` is from before."""
    names = renamed(memory, config)
    for old, new in names.items():
        if new in config.uplinks and not old.startswith(DEVICE):
            yield f"{old} is now called {new} ({config.uplinks[new].interface}); its connections stay"
    kept = set(names.values())
    for name, place in places(config).items():
        if names.get(name, "").startswith(DEVICE) and name not in kept:
            yield f"{name} is now another device, {place} instead of {memory.devices[name]}: its state starts anew"


def remembered(memory: Memory, config: Config) -> Memory:
    """Return the memory under the names of `config`, devices included; numbers are still those of before."""
    names = renamed(memory, config)
    ids = _moved(memory.ids, names)
    devices = _moved(memory.devices, names) | places(config)
    return replace(
        memory,
        ids=ids,
        devices=devices,
        gateways=_keys_moved(memory.gateways, names),
        orders=_moved(memory.orders, names),
        drains=_keys_moved(memory.drains, names),
        outages=_moved(memory.outages, names),
    )


def followed(state: State, names: Names) -> State:
    """Return the state under its new names; what has lost its uplink is left out.

    Results of probes and checks that are under way carry the old names, so they count for nothing.
    """
    if not names:
        return state
    quotas = state.known.quotas
    counted = replace(quotas, usages=_moved(quotas.usages, names), logged=_moved(quotas.logged, names))
    return replace(
        state,
        known=replace(state.known, quotas=counted),
        health=replace(
            state.health,
            rounds=_voided(_keys_moved(state.health.rounds, names), names),
            checks=_checks(state.health.checks, names),
            bad_targets=_bad_targets(state.health.bad_targets, names),
            watches=_keys_moved(state.health.watches, names),
            failovers=_keys_moved(state.health.failovers, names),
        ),
        decision=replace(
            state.decision,
            reach=_keys_moved(state.decision.reach, names),
            views=_moved(state.decision.views, names),
            ramps=_keys_moved(state.decision.ramps, names),
            drains={k: v for k, v in _keys_moved(state.decision.drains, names).items() if not k[0].startswith(DEVICE)},
            selection=None if state.decision.selection is None else _selection(state.decision.selection, names),
        ),
        done=replace(
            state.done, logged=_logged(state.done.logged, names), standings=_moved(state.done.standings, names)
        ),
        agenda=replace(
            state.agenda,
            sweeps=tuple(replace(s, uplink=names.get(s.uplink, s.uplink)) for s in state.agenda.sweeps),
        ),
    )


def _moved(known: Mapping[str, T], names: Names) -> dict[str, T]:
    """Move values to other names, all at once; a name that somebody moves to loses what it had."""
    taken = set(names.values())
    stay = {name: value for name, value in known.items() if name not in names and name not in taken}
    return stay | {names[name]: value for name, value in known.items() if name in names}


def _keys_moved(known: Mapping[UplinkFamily, T], names: Names) -> dict[UplinkFamily, T]:
    taken = set(names.values())
    stay = {key: value for key, value in known.items() if key[0] not in names and key[0] not in taken}
    return stay | {(names[key[0]], key[1]): value for key, value in known.items() if key[0] in names}


def _key(key: UplinkFamily, names: Names) -> tuple[str, Family]:
    return names.get(key[0], key[0]), key[1]


def _voided(health: Mapping[UplinkFamily, ProbeState], names: Names) -> dict[UplinkFamily, ProbeState]:
    """Forget rounds under way of those that moved; later ones have numbers that no earlier one of any uplink had."""
    moved = set(names.values())
    latest = max((probes.number for probes in health.values()), default=0)
    return {
        key: replace(probes, open=(), number=latest, void=latest) if key[0] in moved else probes
        for key, probes in health.items()
    }


def _checks(checks: Checks, names: Names) -> Checks:
    moved = set(names.values())
    latest = max((one.number for layers in checks.known.values() for one in layers.values()), default=0)

    def voided(one: LayerState) -> LayerState:
        due = one.sent if one.pending and one.sent is not None else one.next
        return replace(one, pending=False, number=latest, next=due)

    known = {
        key: {layer: voided(one) for layer, one in layers.items()} if key[0] in moved else layers
        for key, layers in _keys_moved(checks.known, names).items()
    }
    asked = {key: number for key, number in checks.asked.items() if key[0] not in names}
    return replace(checks, known=known, spent=_moved(checks.spent, names), asked=asked)


def _bad_targets(bad_targets: BadTargets, names: Names) -> BadTargets:
    """Doubts of those that moved are dropped: they are about rounds that do not count."""
    heard = {
        target: tuple((names.get(name, name), at) for name, at in answers)
        for target, answers in bad_targets.heard.items()
    }
    pending = tuple(one for one in bad_targets.pending if one.result.uplink not in names)
    return replace(bad_targets, misses=_keys_moved(bad_targets.misses, names), heard=heard, pending=pending)


def _logged(logged: Logged, names: Names) -> Logged:
    """What was told of an uplink was told of it under its old name: nothing of it is news."""
    return replace(
        logged,
        states=_moved(logged.states, names),
        ends=_keys_moved(logged.ends, names),
        flaps=_moved(logged.flaps, names),
        held=frozenset(names.get(name, name) for name in logged.held),
    )


def _selection(selection: Selection, names: Names) -> Selection:
    def choice(one: Choice) -> Choice:
        return replace(one, members=tuple((names.get(name, name), weight) for name, weight in one.members))

    return Selection(
        {key: choice(one) for key, one in selection.choices.items()},
        dead=frozenset(_key(key, names) for key in selection.dead),
        moved=frozenset(_key(key, names) for key in selection.moved),
        down=frozenset(_key(key, names) for key in selection.down),
    )
