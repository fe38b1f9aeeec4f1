"""Take in a configuration: numbers, what is known under which name, and whose connections are let go."""

from __future__ import annotations

from polywan.config import Config
from polywan.core.engine import renaming, target_blame
from polywan.core.evolve import replace
from polywan.core.marks import allocate
from polywan.core.net import FAMILIES, MarkLayout
from polywan.core.quota import ledger
from polywan.core.resolved import numbered, resolve
from polywan.core.state import retired_marks
from polywan.core.state.agenda import Sweep
from polywan.core.state.effects import Effect, Level, Log, SaveMemory
from polywan.core.state.mask import settled
from polywan.core.state.state import State


def take(state: State, config: Config, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Return the state with this configuration, before any decision, and what has to be kept and told first.

    Raises:
        CapacityError: it needs more numbers than there are.
    """
    config = settled(config, state.known.memory)
    wanted = numbered(config)
    names = renaming.renamed(state.known.memory, config)
    memory = renaming.remembered(state.known.memory, config)
    layout = MarkLayout(config.global_.mark_mask)
    memory = replace(memory, ids=allocate(wanted, memory.ids, layout), mask=layout.mask)
    resolved = resolve(config, memory.ids, state.known.config)
    memory = replace(memory, devices={name: device for name, device in memory.devices.items() if name in memory.ids})
    same = memory == state.known.memory
    notes = tuple(Log(Level.INFO, "uplink.renamed", text) for text in renaming.renamings(state.known.memory, config))
    before = numbered(state.known.config.file) if state.known.config else ()
    removed = [(old, name) for old in before if (name := names.get(old, old)) not in wanted and name in memory.ids]
    sweeps = [Sweep(now, old, layout.mark(memory.ids[name]), family) for old, name in removed for family in FAMILIES]
    first = state.known.config is None
    state = renaming.followed(state, names)
    quotas = ledger.applied(state.known.quotas, resolved, first=first)
    state = replace(
        state,
        known=replace(state.known, config=resolved, memory=memory, quotas=quotas),
        decision=replace(
            state.decision,
            retired=retired_marks.removed(
                state.decision.retired,
                {sweep.mark for sweep in sweeps},
                {layout.mark(memory.ids[n]) for n in wanted},
                now,
            ),
        ),
        health=replace(
            state.health,
            rounds={key: probes for key, probes in state.health.rounds.items() if key[0] in config.uplinks},
            bad_targets=target_blame.kept(state, resolved),
        ),
        agenda=replace(state.agenda, sweeps=(*state.agenda.sweeps, *sweeps)),
    )
    return state, notes if same else (SaveMemory(memory), *notes)
