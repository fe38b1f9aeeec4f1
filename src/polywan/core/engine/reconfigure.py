"""Take in a configuration: numbers, what is known under which name, and whose connections are let go."""

from __future__ import annotations

from polywan.config import Config
from polywan.core.engine import renaming, target_blame
from polywan.core.evolve import replace
from polywan.core.marks import allocate
from polywan.core.net import FAMILIES
from polywan.core.policy.numbering import layout_of, numbered, numbers_of, policy_marks_of
from polywan.core.state import retired_marks
from polywan.core.state.effects import Effect, Level, Log, SaveMemory
from polywan.core.state.mask import settled
from polywan.core.state.state import State, Sweep


def take(state: State, config: Config, now: float) -> tuple[State, tuple[Effect, ...]]:
    """Return the state with this configuration, before any decision, and what has to be kept and told first.

    Raises:
        CapacityError: it needs more numbers than there are.
    """
    config = settled(config, state.memory)
    layout, wanted = layout_of(config), numbered(config)
    names = renaming.renamed(state.memory, config)
    memory = renaming.remembered(state.memory, config)
    memory = replace(memory, ids=allocate(wanted, memory.ids, layout), mask=layout.mask)
    memory = replace(memory, devices={name: device for name, device in memory.devices.items() if name in memory.ids})
    same = memory == state.memory
    notes = tuple(Log(Level.INFO, "uplink.renamed", text) for text in renaming.renamings(state.memory, config))
    before = numbered(state.config) if state.config else ()
    removed = [(old, name) for old in before if (name := names.get(old, old)) not in wanted and name in memory.ids]
    sweeps = [Sweep(now, old, layout.mark(memory.ids[name]), family) for old, name in removed for family in FAMILIES]
    state = renaming.followed(state, names)
    state = replace(
        state,
        config=config,
        memory=memory,
        numbers=numbers_of(config, memory.ids),
        policy_marks=policy_marks_of(config, memory.ids),
        retired=retired_marks.removed(
            state.retired, {sweep.mark for sweep in sweeps}, {layout.mark(memory.ids[n]) for n in wanted}, now
        ),
        probing={name: config.health_of(name) for name in config.uplinks},
        health={key: probes for key, probes in state.health.items() if key[0] in config.uplinks},
        bad_targets=target_blame.kept(state, config),
        sweeps=(*state.sweeps, *sweeps),
    )
    return state, notes if same else (SaveMemory(memory), *notes)
