"""Random accidents from a seed, under load, in private namespaces; then what was promised and not kept.

Usage: make chaos [SEED=7] [SECONDS=120]

Exit code 0 when every promise was kept, 1 otherwise or when the run could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pprint
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chaos.checker import check
from chaos.drive import Run, speed
from chaos.history import History
from chaos.plan import make_plan
from polywan.core.errors import PolywanError
from polywan.lab import sandbox
from polywan.lab.network import build

HOME: Final = Path("/run/polywan-chaos")
_SEEDS: Final = 100_000


def main(argv: Sequence[str]) -> int:
    """Enter the sandbox if need be, run, judge, print; return the exit code."""
    arguments = _arguments(argv)
    try:
        if os.environ.get(sandbox.INSIDE) != "1":
            again = ["--seed", str(arguments.seed), "--seconds", f"{arguments.seconds:g}"]
            again += ["--keep", str(arguments.keep)] if arguments.keep else []
            sandbox.enter([sys.executable, "-m", "chaos", *again])
        sandbox.prepare()
        return run(arguments.seed, arguments.seconds, arguments.keep)
    except PolywanError as error:
        print(f"chaos: {error}\n{replay(arguments.seed, arguments.seconds)}", file=sys.stderr)
        return 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(_SEEDS), help="default: a new one")
    parser.add_argument("--seconds", type=float, default=120.0, help="of accidents; looking at the end comes on top")
    parser.add_argument("--keep", type=Path, help="directory for the daemon's log and the recorded run")
    arguments = parser.parse_args(argv)
    if not 5 <= arguments.seconds <= 3600:
        parser.error("--seconds: from 5 to 3600")
    return arguments


def replay(seed: int, seconds: float) -> str:
    """Return how to make the same run again."""
    return f"replay it: make chaos SEED={seed} SECONDS={seconds:g}"


def run(seed: int, seconds: float, keep: Path | None) -> int:
    """Make one run and print what came of it.

    Raises:
        LabError: the lab could not be built, or the daemon never worked at all.
    """
    plan, factor = make_plan(seed, seconds), speed()
    kind = f"{plan.uplinks} uplinks {'on one cable' if plan.trunk else 'with a cable each'}"
    say(f"seed {seed}, {seconds:g} s, {len(plan.actions)} actions, {kind}, margins x {factor:.1f}")
    with build(plan.uplinks, trunk=plan.trunk) as lab:
        story = Run(lab, plan, HOME, say, factor)
        try:
            history = asyncio.run(story.play())
        finally:
            if keep is not None:
                _keep(keep, story)
            story.daemon.stop()
    found = check(history)
    say(summary(history))
    for violation in found:
        print(f"VIOLATED {violation}")
    if found:
        print(f"{len(found)} promises were not kept; {replay(seed, seconds)}")
    else:
        say("every promise was kept")
    return 1 if found else 0


def summary(history: History) -> str:
    """Return one line of what the run consisted of."""
    failed = sum(not attempt.ok for attempt in history.attempts)
    broken = sum(flow.broken is not None for flow in history.flows)
    moved = sum(len(flow.moves) for flow in history.flows)
    return (
        f"{len(history.deeds)} actions, {len(history.lives)} lives of the daemon; {len(history.attempts)} new "
        f"connections, {failed} failed; {len(history.flows)} long flows, {broken} broke, {moved} moves; "
        f"{len(history.inbound)} from outside, {sum(not i.attempt.ok for i in history.inbound)} failed"
    )


def say(text: str) -> None:
    """Tell what is under way, on standard error."""
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def _keep(directory: Path, story: Run) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    log = "".join(f"{line.at - story.history.begun:8.3f} {line.text}\n" for line in list(story.daemon.log))
    (directory / "daemon.log").write_text(log, encoding="utf-8")
    (directory / "history.txt").write_text(pprint.pformat(story.history, width=160), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
