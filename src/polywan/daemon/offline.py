"""The daemon's first decision without the daemon: for `plan` and `why`, and for `down` when nothing runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from polywan import presence
from polywan.api import calls
from polywan.api.requests import WhatToPlan
from polywan.api.running import Planned, Removed
from polywan.api.why import Explanation
from polywan.client import Client
from polywan.client import runtime_dir as resolve_directory
from polywan.config import Config, file_texts, load_with_warnings
from polywan.core.engine import step as engine
from polywan.core.errors import ControlError, NewerError, NotPermitted, PolywanError
from polywan.core.plan.cautions import of_the_box
from polywan.core.plan.conflicts import rule_conflicts
from polywan.core.plan.plan import ActualState, Plan
from polywan.core.quota.limits import Quotas
from polywan.core.resolved import resolve
from polywan.core.routing.nexthops import Nexthop, NexthopGroup
from polywan.core.routing.routes import IpRule, Route
from polywan.core.routing.sysctls import wants_multipath
from polywan.core.ruleset.model import ChainState, Key, NftState
from polywan.core.state.effects import Apply, Effect
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.state.state import Known, State
from polywan.core.status.rehearsal import planned
from polywan.core.world.foreign_chains import ForwardChain
from polywan.core.world.foreign_routing import ForeignRule
from polywan.core.world.lookups import NOTHING, Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.queues import Queues
from polywan.daemon import store
from polywan.daemon.api import why
from polywan.daemon.lookups import leases
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import look_once
from polywan.daemon.main import lack
from polywan.daemon.removing import remove
from polywan.daemon.rundir import locked
from polywan.daemon.tasks.quotas import load_usages
from polywan.kernel.linux import LinuxKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class NftRecord:
    """`NftState` in a shape that JSON can keep: maps are lists of pairs, so that numbers stay numbers."""

    chains: dict[str, ChainState]
    sets: dict[str, list[Key]]
    maps: dict[str, list[tuple[Key, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A machine as a value: what `plan --record` writes and `plan --observed` reads.

    Attributes:
        foreign_rules: where recordings of old have the policy rules of others; new ones have them in `observed`.
    """

    observed: Observed
    lookups: Lookups = NOTHING
    nexthops: tuple[Nexthop, ...] = ()
    groups: tuple[NexthopGroup, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[IpRule, ...] = ()
    foreign_rules: tuple[IpRule, ...] = ()
    chains: tuple[ForwardChain, ...] = ()
    queues: Queues | None = None
    sysctls: dict[str, str]
    nft: NftRecord | None = None

    def actual(self) -> ActualState:
        """Return the part that is ours."""
        nft = None
        if self.nft is not None:
            nft = NftState(
                chains=self.nft.chains,
                sets={name: frozenset(keys) for name, keys in self.nft.sets.items()},
                maps={name: dict(pairs) for name, pairs in self.nft.maps.items()},
            )
        return ActualState(
            nexthops=frozenset((*self.nexthops, *self.groups)),
            routes=frozenset(self.routes),
            rules=frozenset(self.rules),
            nft=nft,
            sysctls=self.sysctls,
            chains=self.chains,
            queues=self.queues,
        )

    def world(self) -> Observed:
        """Return the part that is not; older recordings had the policy rules of others beside it."""
        if not self.foreign_rules:
            return self.observed
        return replace(self.observed, rules=tuple(map(_foreign, self.foreign_rules)))


def _foreign(rule: IpRule) -> ForeignRule:
    return ForeignRule(
        family=rule.family,
        priority=rule.priority,
        action="table" if rule.goto is None else "goto",
        table=rule.table,
        goto=rule.goto,
        invert=rule.invert,
        from_=rule.from_,
        iif=rule.iif,
        oif=rule.oif,
        mark=rule.mark,
        suppress_prefixlength=rule.suppress_prefixlength,
    )


def recording(observed: Observed, actual: ActualState, lookups: Lookups = NOTHING) -> Recording:
    """Return the machine as a recording."""
    nft = None
    if actual.nft is not None:
        nft = NftRecord(
            chains=dict(actual.nft.chains),
            sets={name: list(keys) for name, keys in actual.nft.sets.items()},
            maps={name: list(pairs.items()) for name, pairs in actual.nft.maps.items()},
        )
    return Recording(
        observed=observed,
        lookups=lookups,
        nexthops=tuple(n for n in actual.nexthops if isinstance(n, Nexthop)),
        groups=tuple(n for n in actual.nexthops if isinstance(n, NexthopGroup)),
        routes=tuple(actual.routes),
        rules=tuple(actual.rules),
        chains=actual.chains,
        queues=actual.queues,
        sysctls=dict(actual.sysctls),
        nft=nft,
    )


def dump(recording: Recording) -> bytes:
    """Return the recording as JSON."""
    return _adapter().dump_json(recording, indent=1)


def parse(text: bytes, name: str) -> Recording:
    """Return the recording that `dump` wrote.

    Raises:
        PolywanError: it is not one.
    """
    try:
        return _adapter().validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PolywanError(f"{name}: not a recording of a machine: {where}: {first['msg']}") from error


def _adapter() -> TypeAdapter[Recording]:
    return TypeAdapter(Recording)


def record(config: Config, path: Path) -> None:
    """Write a recording of this machine.

    Raises:
        PolywanError: the kernel cannot be read, or the file cannot be written.
    """
    content = recorded(config)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _refused("write", path, error) from error


def recorded(config: Config, *, trials: bool = True) -> bytes:
    """Return a recording of this machine; without `trials` nothing at all is written into the kernel.

    Raises:
        PolywanError: the kernel cannot be read.
    """
    observed, actual = _read(config, trials=trials)
    return dump(recording(observed, actual, asyncio.run(look_once(config, SystemResolver()))))


def plan(config: Config, state_dir: Path, observed: Path | None) -> tuple[Plan, tuple[str, ...]]:
    """Return what the daemon would do first, and its warnings; against a recording or this machine.

    Raises:
        PolywanError: the recording or the kernel cannot be read.
    """
    state, effects, warning = _first_decision(config, state_dir, observed)
    plans = [effect.plan for effect in effects if isinstance(effect, Apply)]
    return (plans[0] if plans else Plan()), tuple(filter(None, (warning, *state.decision.warnings)))


def planned_here(
    config: Config, config_path: Path, runtime_dir: Path | None, state_dir: Path, observed: Path | None = None
) -> Planned:
    """Return what a good configuration would change now.

    The daemon of this network namespace says it, which knows who is in slow start or stands by; without one, or
    against a recording, it is the first decision of a daemon that starts.

    Raises:
        ControlError: the daemon refuses.
        PolywanError: as `plan`.
    """
    if observed is None and (found := _beside_daemon(config_path, runtime_dir)) is not None:
        return found
    return planned(*plan(config, state_dir, observed))


def _beside_daemon(config: Path, chosen: Path | None) -> Planned | None:
    here = presence.found()
    directory = here.runtime_dir if here and not chosen else resolve_directory(chosen)
    try:
        return Client(directory).ask(calls.PLAN, WhatToPlan(files=file_texts(config), namespace=presence.namespace()))
    except ControlError as error:
        if error.status in {0, 404, 409}:
            return None
        raise


def own_warnings(config: Config, state_dir: Path, said: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what polywan itself warns of, but for what `polywan doctor` finds by checks of its own.

    Args:
        config: the file.
        state_dir: where the daemon keeps its memory.
        said: the warnings of a running daemon, if there is one.

    Returns:
        Those of a first decision, each of which ends with advice, and those that only the running daemon has.

    Raises:
        PolywanError: the kernel cannot be read.
    """
    state, _, _ = _first_decision(config, state_dir, None, trials=False)
    known, first = state.known, state.decision.warnings
    if known.config is None or known.observed is None or known.actual is None:
        return first, tuple(text for text in said if text not in first)
    rules = rule_conflicts(known.config, known.observed, known.config.marks)
    box = of_the_box(known.config, known.observed, known.actual, state.decision.reach, (*first, *said))
    covered = {*box, *map(str, rules)}
    standing = tuple(text for text in first if text not in covered)
    return standing, tuple(text for text in said if text not in covered and text not in standing)


def explain(config_path: Path, state_dir: Path, observed: Path, words: Mapping[str, str]) -> Explanation:
    """Return which way a connection would take on a recorded machine; `words` as in `core/trace/question.py`.

    Raises:
        QuestionError: they make no sense.
        PolywanError: the configuration or the recording cannot be read.
    """
    loaded = load_with_warnings(config_path)
    state, _, _ = _first_decision(loaded.config, state_dir, observed)
    state = replace(state, known=replace(state.known, rules_at=loaded.rules_at))
    return why.recorded(state, words, int(time.time()))


def _first_decision(
    config: Config, state_dir: Path, observed: Path | None, *, trials: bool = True
) -> tuple[State, tuple[Effect, ...], str]:
    """Decide as the daemon does when it starts; the last value is a warning about its memory.

    Without `trials`, what the kernel can do is not found out: nothing at all is written into it.
    """
    if observed is not None:
        try:
            recording = parse(observed.read_bytes(), str(observed))
        except OSError as error:
            raise _refused("read", observed, error) from error
        world, actual = recording.world(), recording.actual()
        lookups = _recorded(recording.lookups, asyncio.run(look_once(config, None)))
    else:
        world, actual = _read(config, trials=trials)
        lookups = asyncio.run(look_once(config, SystemResolver()))
    memory, warning = store.load(state_dir)
    known = Known(memory=memory, quotas=_quotas(state_dir))
    state, _ = engine.step(State(known=known), ConfigLoaded(config, lookups=lookups), 0.0)
    return *engine.step(state, ReadDone(world, actual), 0.0), warning


def _quotas(state_dir: Path) -> Quotas:
    """Return the use of quotas that the daemon has kept; it says itself what is wrong with the file."""
    with suppress(OSError, ValueError, NewerError):
        return Quotas(usages=load_usages(state_dir))
    return Quotas()


def _refused(what: str, path: Path, error: OSError) -> PolywanError:
    text = f"cannot {what} {path}: {error.strerror}"
    return (
        NotPermitted(f"{text}: use sudo, or another file") if isinstance(error, PermissionError) else PolywanError(text)
    )


def _recorded(there: Lookups, here: Lookups) -> Lookups:
    """Return what was recorded, with the files of this machine for lists that were not."""
    missing = tuple(problem for problem in here.problems if not any(problem.startswith(path) for path in there.lists))
    return replace(there, lists={**here.lists, **there.lists}, problems=(*there.problems, *missing))


def _read(config: Config, *, trials: bool = True) -> tuple[Observed, ActualState]:
    kernel = _kernel(multipath=wants_multipath(config)) if trials else LinuxKernel(trials=False)
    try:
        resolved = resolve(config, {})
        observed = leases.observe(kernel, resolved)
        state = State(known=Known(config=resolved, observed=observed))
        return observed, kernel.read(engine.sysctl_paths(state, observed), engine.queue_kinds(state))
    finally:
        kernel.close()


def _kernel(*, multipath: bool = False) -> LinuxKernel:
    kernel = LinuxKernel()
    if lacking := kernel.missing(multipath=multipath):
        kernel.close()
        raise lack(lacking)
    return kernel


def remove_without_daemon(runtime_dir: Path, state_dir: Path) -> Removed:
    """Leave the kernel as found when no daemon runs.

    Raises:
        BusyError: a daemon runs after all, but does not answer.
    """
    kernel = _kernel()
    try:
        with presence.only_one(runtime_dir), locked(runtime_dir):
            return remove(kernel, state_dir)
    finally:
        kernel.close()
