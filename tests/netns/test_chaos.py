"""A short run of `make chaos`; long ones with new seeds are for developers, see docs/design/chaos.md."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.checker import check
from chaos.drive import Run, speed
from chaos.plan import Kind, make_plan

if TYPE_CHECKING:
    from support.netns import BuildLab

SEED, SECONDS = 180109, 9.0


def test_accidents_under_load_break_no_promise(lab_of: BuildLab) -> None:
    plan = make_plan(SEED, SECONDS)
    kinds = {action.kind for action in plan.actions}
    assert {Kind.KILL, Kind.RELOAD, Kind.FLUSH_RULES, Kind.SILENCE, Kind.CUT, Kind.TUNNEL_COMES, Kind.FILL} <= kinds
    lines: list[str] = []
    run = Run(lab_of(plan.uplinks, trunk=plan.trunk), plan, Path("/run/polywan-chaos"), lines.append, speed())
    try:
        history = asyncio.run(run.play())
    finally:
        run.daemon.stop()
    log = "\n".join(line.text for line in run.daemon.log)
    assert [str(violation) for violation in check(history)] == [], f"make chaos SEED={SEED} SECONDS={SECONDS:g}\n{log}"
