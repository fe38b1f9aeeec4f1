"""What a configuration would change, asked of a daemon: in its own network namespace, and in no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from polywan.api.requests import WhatToPlan
from polywan.api.running import Planned
from polywan.core.errors import ControlError
from polywan.daemon.api.plan import plan
from support.daemons import running

TEXT = '[uplinks.new]\ninterface = "u1"\n'
HERE = {"polywan.toml": TEXT}


def planned(state_dir: Path, asked: WhatToPlan) -> Planned:
    async def answer() -> Planned:
        async with running(state_dir) as (daemon, kernel):
            return await plan(daemon, kernel, asked)

    return asyncio.run(answer())


def test_a_page_that_knows_no_namespace_is_answered_for_the_daemons_own(tmp_path: Path) -> None:
    assert planned(tmp_path, WhatToPlan(files=HERE)).ops != ()


def test_a_plan_for_another_namespace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="another network namespace") as refused:
        planned(tmp_path, WhatToPlan(files=HERE, namespace="4:1"))
    assert refused.value.status == 409
