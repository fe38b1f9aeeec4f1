"""What probing a metered uplink costs that stands by, and when it is asked as often as ever."""

from __future__ import annotations

from typing import Any

import pytest

from polywan.core.health.layers import Layer
from polywan.core.net import Family
from polywan.core.state.effects import Effect, StartCheck, StartProbe
from support.timeline import Sim

MONTH = 30 * 86400.0
RUN = 6 * 3600.0

ECHO = {Family.V4: 2 * 84, Family.V6: 2 * 104}
"""Bytes of an echo and its answer on an Ethernet, with preamble and gap."""
NEIGHBOUR = {Family.V4: 2 * 84, Family.V6: 2 * 110}
"""The same of ARP and neighbour discovery."""
CHECK = {Layer.DNS: 3 * 2 * 150, Layer.HTTP: 2 * 160 + 5000, Layer.LARGE: 2 * 1558}
"""The same of the other checks, at most: three servers, a page by TLS."""


class Wire(Sim):
    """Counts what probing by u2 puts on the wire."""

    def __init__(self, settings: dict[str, Any], count: int = 2) -> None:
        self.bytes = 0
        self.rounds: list[tuple[float, Family, int]] = []
        super().__init__(settings, count)

    def note(self, effect: Effect) -> None:
        super().note(effect)
        match effect:
            case StartProbe(order) if order.uplink == "u2":
                # The kernel asks for the gateway's address again once it has not heard of it for half a minute.
                self.bytes += ECHO[order.family] * len(order.targets) + NEIGHBOUR[order.family]
                self.rounds.append((self.now, order.family, len(order.targets)))
            case StartCheck(order) if order.uplink == "u2":
                self.bytes += CHECK.get(order.layer, NEIGHBOUR[order.family])

    def times(self, since: float) -> list[float]:
        """When u2 was asked by IPv4."""
        return [at for at, family, _ in self.rounds if family is Family.V4 and at >= since]


def configured(**more: Any) -> dict[str, Any]:
    return {"uplinks": {"u1": {"interface": "wan1"}, "u2": {"interface": "wan2", "metered": True, **more}}}


@pytest.mark.parametrize("checks", [[], ["dns", "http", "large"]], ids=["rounds alone", "with checks"])
def test_a_metered_uplink_that_stands_by_costs_at_most_20_megabytes_a_month(checks: list[str]) -> None:
    settings = configured(health={"checks": checks, "http_url": "https://192.0.2.9/204"} if checks else {})
    # The one that serves is asked less often than by default: it only costs the test time.
    settings["uplinks"]["u1"]["health"] = {"interval": "30s"}
    wire = Wire(settings)
    wire.run_until(RUN)
    assert 5e6 < wire.bytes * MONTH / RUN <= 20e6


@pytest.mark.parametrize(
    "change",
    [
        {"tiers": [["u1", "u2"]]},
        {"tiers": [["u2"], ["u1"]]},
    ],
    ids=["shares", "serves alone"],
)
def test_a_metered_uplink_that_serves_is_asked_each_ten_seconds(change: dict[str, Any]) -> None:
    wire = Wire({**configured(), "policies": {"default": change}})
    wire.run_until(300)
    assert len(wire.times(100)) == 20


def test_a_metered_uplink_that_a_rule_prefers_is_asked_each_ten_seconds() -> None:
    wire = Wire({**configured(), "rules": [{"port": 443, "protocol": "tcp", "uplink": "u2"}]})
    wire.run_until(300)
    assert len(wire.times(100)) == 20


@pytest.mark.parametrize("interval", [5, 30])
def test_an_interval_that_somebody_has_set_is_kept_while_it_stands_by(interval: int) -> None:
    wire = Wire(configured(health={"interval": f"{interval}s"}))
    wire.run_until(400)
    assert len(wire.times(100)) == 300 // interval
    # The first rounds have to prove it well; from then on targets take turns, as with any uplink.
    asked = [targets for _, family, targets in wire.rounds if family is Family.V4]
    assert asked == [3] * 5 + [1] * (len(asked) - 5)


def test_the_targets_of_an_uplink_that_stands_by_take_turns() -> None:
    wire = Wire(configured())
    asked: list[str] = []

    def heard(effect: Effect) -> None:
        if isinstance(effect, StartProbe) and effect.order.uplink == "u2" and len(effect.order.targets) == 1:
            asked.append(str(effect.order.targets[0].address))

    wire.listeners.append(heard)
    wire.run_until(900)
    v4 = [address for address in asked if ":" not in address]
    assert len(v4) >= 6
    assert set(v4[:3]) == set(v4[3:6]) == {"1.1.1.1", "8.8.8.8", "9.9.9.9"}


def test_one_target_that_is_dead_on_it_alone_does_not_take_it_down() -> None:
    wire = Wire(configured())
    wire.run_until(300)
    wire.command(("mute", "8.8.8.8", "u2"))
    wire.run_until(2000)
    assert wire.state.decision.views["u2"].state != "down"
    assert wire.ever_cut is False


def test_the_uplink_is_asked_again_at_once_when_a_probe_is_lost() -> None:
    wire = Wire(configured())
    wire.run_until(300)
    wire.command(("silent", "u2"))
    wire.run_until(440)
    first = wire.times(300)[0]
    assert [at - first for at in wire.times(300)[1:3]] == pytest.approx([2.5, 5.0], abs=0.2)


def test_the_uplink_is_asked_within_a_second_once_it_serves() -> None:
    wire = Wire(configured())
    wire.run_until(300)
    wire.command(("carrier", "wan1", "off"))
    wire.run_until(301)
    assert len(wire.times(300)) == 1
    wire.run_until(341)
    assert len(wire.times(300)) == 5


def test_the_uplink_rests_again_when_nobody_needs_it() -> None:
    wire = Wire({**configured(), "health": {"hold_down": "1s"}})
    wire.run_until(300)
    wire.command(("carrier", "wan1", "off"))
    wire.run_until(330)
    wire.command(("carrier", "wan1", "on"))
    wire.run_until(2000)
    assert len(wire.times(1400)) == 5


def test_a_check_that_is_late_is_made_once_the_uplink_serves() -> None:
    wire = Wire(configured(health={"checks": ["dns"]}))
    wire.run_until(600)
    wire.command(("layer", "u2", "dns", "no", "answer"))
    wire.command(("carrier", "wan1", "off"))
    wire.run_until(610)
    assert "no answer" in wire.state.decision.views["u2"].reason
