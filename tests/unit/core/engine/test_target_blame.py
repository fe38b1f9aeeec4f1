"""Whose opinion is asked for at once when a target misses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from polywan.config import HealthSettings
from polywan.core.engine.target_blame import second_opinions
from polywan.core.health import rounds as hl
from polywan.core.health.bad_targets import Assessment, BadTargets, PendingMiss
from polywan.core.health.probes import ProbeResult
from polywan.core.health.rounds import Health
from polywan.core.net import Family, IPAddress
from polywan.core.state.state import HealthState, State

SETTINGS = HealthSettings()
DEAD, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
KEY = ("u2", Family.V4)
MISS = PendingMiss(ProbeResult(uplink="u1", family=Family.V4, round=9, target=DEAD, rtt=None), sent=10.0)
DOUBT = Assessment(bad_targets=BadTargets(pending=(MISS,)), counted=(), ask=(KEY,))


@pytest.mark.parametrize(
    ("decides", "due"),
    [(None, 11.5), (OTHER, 11.0)],
    ids=["a round that asks everybody is enough", "one that asks another target is not"],
)
def test_an_uplink_whose_round_is_under_way_is_asked_again_unless_that_asks_everybody(
    decides: IPAddress | None, due: float
) -> None:
    probes = hl.start_round(hl.initial(Health.UP, "", 0.0), SETTINGS, 3, 10.5, decides=decides)
    state = second_opinions(State(health=HealthState(rounds={KEY: probes})), DOUBT, 11.0)
    assert state.health.rounds[KEY].next == due
