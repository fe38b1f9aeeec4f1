"""What a configuration would change right now, to whoever knows all that the daemon knows: `plan` beside a daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polywan.api.running import Operation, Planned
from polywan.config import Config
from polywan.core.engine import reconfigure
from polywan.core.engine import step as engine
from polywan.core.evolve import replace
from polywan.core.plan.plan import Plan, describe
from polywan.core.ruleset.model import NftTable
from polywan.core.state.effects import Apply
from polywan.core.state.events import ReadDone
from polywan.core.state.state import State
from polywan.core.world.lookups import Lookups


def rehearse(state: State, config: Config, lookups: Lookups, read: ReadDone, now: float) -> tuple[Plan, State]:
    """Return the plan that the next decision would lead to under `config`, and the state after it.

    Who is in slow start, degraded or held down counts as it does for the daemon, so an empty plan says that the kernel
    is as it should be.

    Args:
        state: the daemon's; nothing of it changes.
        config: the one in force, or another.
        lookups: what its rules refer to.
        read: the kernel, just read.
        now: monotonic seconds.

    Raises:
        CapacityError: the configuration needs more numbers than there are.
    """
    state, _ = reconfigure.take(
        replace(
            state,
            known=replace(state.known, lookups=lookups),
            done=replace(state.done, repairs=replace(state.done.repairs, times=())),
        ),
        config,
        now,
    )
    state, effects = engine.step(state, read, now)
    plans = [effect.plan for effect in effects if isinstance(effect, Apply)]
    return (plans[0] if plans else Plan()), state


def planned(plan: Plan, warnings: Sequence[str], held: Sequence[Operation] = ()) -> Planned:
    """Return a plan, tables that a daemon holds, and what people should know, as they are shown."""
    ops = tuple(Operation(op=type(op).__name__, text=describe(op)) for op in plan.ops)
    return Planned(ops=(*ops, *held), warnings=tuple(warnings))


def of_held(before: Mapping[str, NftTable], after: Mapping[str, NftTable]) -> tuple[Operation, ...]:
    """Return what changes of the tables that belong to the daemon, each of which is written or removed as a whole."""
    different = (name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name))
    return tuple(Operation(op="Hold", text=f"{'+' if name in after else '-'} table {name}") for name in different)
