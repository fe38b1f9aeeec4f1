"""One round of the control plane in a process of its own, so that nothing is warm which a daemon would find cold.

Usage, in the namespace of a router: plane.py FILE FILE_WITH_ANOTHER_WEIGHT STATE_DIR DEVICE

Does what the daemon's loop does, without the loop: reads the kernel, lets the engine decide, carries out the plan.
Prints one JSON object: milliseconds by step, and what was written. Leaves the kernel as it was found.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from polywan.config import Config, load
from polywan.core.engine import step as engine
from polywan.core.errors import PolywanError
from polywan.core.plan.plan import ApplyReport, NftBatch, Plan, diff
from polywan.core.state.effects import Apply, SaveMemory
from polywan.core.state.events import ConfigLoaded, Event, LinkChanged, ReadDone
from polywan.core.state.state import State
from polywan.daemon import store
from polywan.daemon.removing import remove
from polywan.kernel import heap
from polywan.kernel.linux import LinuxKernel


class Plane:
    """The engine over the real kernel of this namespace."""

    def __init__(self, state_dir: Path) -> None:
        self.kernel = LinuxKernel()
        self.state = State()
        self._state_dir = state_dir

    def feed(self, event: Event) -> list[ApplyReport]:
        """Take one event and carry out what has to be in force at once: memory and plans."""
        self.state, effects = engine.step(self.state, event, time.monotonic())
        reports = []
        for effect in effects:
            if isinstance(effect, SaveMemory):
                store.save(self._state_dir, effect.memory)
            elif isinstance(effect, Apply):
                reports.append(self.kernel.apply(effect.plan))
        return reports

    def read(self) -> ReadDone:
        """Read everything."""
        observed = self.kernel.observe()
        return ReadDone(
            observed, self.kernel.read(engine.sysctl_paths(self.state, observed), engine.queue_kinds(self.state))
        )

    def back_to(self, before: State) -> None:
        """Undo a change: the state is a value, so the kernel is led back to what the old one wanted."""
        if before.decision.desired is None or self.state.known.actual is None:
            raise PolywanError("there is nothing to go back to")
        _check([self.kernel.apply(diff(before.decision.desired, self.state.known.actual))])
        self.state = before


def _check(reports: list[ApplyReport]) -> Plan:
    """Return the one plan that was carried out; an empty one when there was none."""
    if refused := [str(failure) for report in reports for failure in report.failures]:
        raise PolywanError(f"the kernel refused: {refused[:3]}")
    if len(reports) > 1:
        raise PolywanError(f"{len(reports)} plans where one was expected")
    return reports[0].plan if reports else Plan()


def _only(reports: list[ApplyReport]) -> ApplyReport:
    """Return the report of a step that has to change something."""
    if not _check(reports):
        raise PolywanError("nothing was written where something had to change")
    return reports[0]


def batch(plan: Plan) -> dict[str, Any]:
    """Describe what a plan writes: how many operations, how many of them nft transactions, and which kinds of line."""
    texts = [op.text for op in plan.ops if isinstance(op, NftBatch)]
    verbs = sorted({" ".join(line.split()[:2]) for text in texts for line in text.splitlines()})
    return {"writes": len(plan.ops), "nft": len(texts), "verbs": [] if "delete table" in verbs else verbs}


def one_round(file: Path, other: Path, state_dir: Path, device: str) -> dict[str, Any]:
    """Measure each step once, in the order in which a daemon would meet them."""
    config, changed = load(file), load(other)
    plane = Plane(state_dir)
    if lacking := plane.kernel.missing():
        raise PolywanError("; ".join(lacking))
    heap.settle()
    try:
        return {
            **_from_nothing(plane, config),
            **_read_back(plane),
            **_down(plane, device),
            **_weight(plane, changed),
            **_reload(plane, file),
        }
    finally:
        remove(plane.kernel, state_dir)
        plane.kernel.close()


def _since(began: float) -> float:
    return 1000 * (time.perf_counter() - began)


def _from_nothing(plane: Plane, config: Config) -> dict[str, Any]:
    began = time.perf_counter()
    plane.feed(ConfigLoaded(config))
    reports = plane.feed(plane.read())
    taken = _since(began)
    done = _only(reports)
    return {"full_ms": taken, "apply_ms": 1000 * done.seconds, "full": batch(done.plan)}


def _read_back(plane: Plane) -> dict[str, Any]:
    began = time.perf_counter()
    event = plane.read()
    taken = _since(began)
    return {"read_ms": taken, "verify": batch(_check(plane.feed(event)))}


def _down(plane: Plane, device: str) -> dict[str, Any]:
    before = plane.state
    if before.known.observed is None:
        raise PolywanError("nothing was read")
    event = LinkChanged(replace(before.known.observed.links[device], carrier=False))
    began = time.perf_counter()
    reports = plane.feed(event)
    taken = _since(began)
    done = _only(reports)
    plane.back_to(before)
    return {"down_ms": taken, "down_apply_ms": 1000 * done.seconds, "down": batch(done.plan)}


def _weight(plane: Plane, changed: Config) -> dict[str, Any]:
    before = plane.state
    began = time.perf_counter()
    reports = plane.feed(ConfigLoaded(changed))
    taken = _since(began)
    done = _only(reports)
    plane.back_to(before)
    return {"weight_ms": taken, "weight_apply_ms": 1000 * done.seconds, "weight": batch(done.plan)}


def _reload(plane: Plane, file: Path) -> dict[str, Any]:
    began = time.perf_counter()
    config = load(file)
    loaded = _since(began)
    reports = plane.feed(ConfigLoaded(config)) + plane.feed(plane.read())
    return {"reload_ms": _since(began), "load_ms": loaded, "reload": batch(_check(reports))}


def main() -> None:
    file, other, state_dir, device = sys.argv[1:]
    json.dump(one_round(Path(file), Path(other), Path(state_dir), device), sys.stdout)


if __name__ == "__main__":
    try:
        main()
    except PolywanError as error:
        sys.exit(f"plane: {error}")
