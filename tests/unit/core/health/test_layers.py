"""Which layer is checked when, what its results change, and what people are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise

import pytest

from polywan.api.status import UplinkStatus
from polywan.cli.overview import text
from polywan.config import Config, ConfigError, load_text
from polywan.core.engine.probing import SELDOM, SELDOM_METERED
from polywan.core.health.layers import (
    BROKEN_AFTER,
    RECHECK,
    WELL_AFTER,
    CheckOrder,
    CheckResult,
    Layer,
    LayerState,
    LayerVerdict,
    ordered,
    updated,
)
from polywan.core.health.rounds import Health
from polywan.core.net import FAMILIES, Family
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.state import events
from polywan.core.state.effects import Effect, StartCheck
from polywan.core.status import layer_report
from polywan.core.status.document import document
from polywan.core.status.layer_report import report
from polywan.core.world.observed import Observed
from polywan.sim.internet import Internet
from polywan.sim.simulation import Simulation
from support.engine_world import Engine, config, link, world


def after(outcomes: Iterable[bool], layer: Layer = Layer.DNS, state: LayerState | None = None) -> LayerState:
    state = state or LayerState()
    for number, ok in enumerate(outcomes):
        state = ordered(state, number, troubled=False)
        state = updated(state, layer, ok=ok, detail="", rtt=0.01 if ok else None, now=float(number))
    return state


def test_a_layer_is_well_after_its_first_good_check() -> None:
    assert after([True]).verdict is LayerVerdict.OK


def test_one_bad_check_is_no_verdict_and_is_soon_repeated() -> None:
    state = after([True, False])
    assert state.verdict is LayerVerdict.OK
    assert state.next == 1 + RECHECK


def test_bad_checks_in_a_row_break_a_layer() -> None:
    assert after([True, *[False] * BROKEN_AFTER]).verdict is LayerVerdict.BROKEN


def test_a_broken_layer_is_well_after_good_checks_in_a_row() -> None:
    broken = after([False] * BROKEN_AFTER)
    assert after([True], state=broken).verdict is LayerVerdict.BROKEN
    assert after([True, False, True], state=broken).verdict is LayerVerdict.BROKEN
    assert after([True] * WELL_AFTER, state=broken).verdict is LayerVerdict.OK


def test_the_gateway_layer_follows_each_check() -> None:
    assert after([True, False], Layer.GATEWAY).verdict is LayerVerdict.BROKEN
    assert after([True, False, True], Layer.GATEWAY).verdict is LayerVerdict.OK


class Prober(Simulation):
    """Notes which checks are asked for, and when; an uplink or a layer fails as it is told."""

    def __init__(self, config: Config, observed: Observed | None = None) -> None:
        super().__init__(observed or world(2))
        self.internet.check_time, self.internet.check_bytes = 0.005, 60
        self.orders: list[tuple[float, CheckOrder]] = []
        self.listeners.append(self._note)
        self.start(config)

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, StartCheck):
            self.orders.append((self.now, effect.order))

    def run(self, seconds: float) -> None:
        self.run_until(self.now + seconds)

    def silence(self, name: str) -> None:
        self.internet.silent.update((name, family) for family in FAMILIES)

    def times(self, layer: Layer, uplink: str = "u1", family: Family = Family.V4) -> list[float]:
        return [at for at, o in self.orders if (o.uplink, o.family, o.layer) == (uplink, family, layer)]


def prober(**health: object) -> Prober:
    return Prober(config(2, health=health))


def test_a_gateway_is_asked_seldom_while_all_is_well() -> None:
    probes = prober()
    probes.run(100)
    times = probes.times(Layer.GATEWAY)
    assert times[0] < 1
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([SELDOM] * 3)


def test_the_gateways_of_metered_uplinks_are_asked_more_seldom() -> None:
    fields = {
        "uplinks": {"u1": {"interface": "wan1", "metered": True}, "u2": {"interface": "wan2"}},
        "policies": {"default": {"tiers": [["u1", "u2"]]}},
    }
    probes = Prober(Config.model_validate(fields))
    probes.run(SELDOM_METERED + 2)
    assert len(probes.times(Layer.GATEWAY)) == 2


def test_a_gateway_is_asked_at_once_when_rounds_turn_bad_and_then_each_interval() -> None:
    probes = prober()
    probes.run(40)
    probes.silence("u1")
    probes.run(10)
    times = [at for at in probes.times(Layer.GATEWAY) if at > 40]
    assert times[0] < 41.5
    assert len(times) >= 8


def test_the_gateway_of_a_line_whose_rounds_fail_without_a_verdict_is_asked_each_interval() -> None:
    probes = prober(fall=20)
    probes.run(40)
    probes.silence("u1")
    probes.run(5)
    assert probes.state.health.rounds["u1", Family.V4].health is Health.UP
    assert len([at for at in probes.times(Layer.GATEWAY) if at > 40]) >= 4


def test_the_gateway_of_a_line_that_is_busy_is_asked_every_fifth_interval() -> None:
    probes = prober()
    interval = probes.state.known.probing["u1"].interval
    probes.run(40)
    probes.internet.traffic["u1"] = 1000.0
    probes.internet.queues["u1"] = (probes.now, 5.0, 1.0)
    probes.run(60)
    assert probes.state.health.rounds["u1", Family.V4].quality.busy
    times = [at for at in probes.times(Layer.GATEWAY) if at > 60]
    assert len(times) >= 7
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([5 * interval] * (len(times) - 1))
    # Once it is dead it is asked as often as any other one.
    probes.silence("u1")
    probes.run(20)
    assert probes.state.health.rounds["u1", Family.V4].health is Health.DOWN
    before, last = probes.times(Layer.GATEWAY)[-2:]
    assert last - before == pytest.approx(interval)


def test_a_point_to_point_link_has_no_gateway_to_ask() -> None:
    links = {"wan1": link(1, point_to_point=True), "wan2": link(2)}
    probes = Prober(config(2), replace(world(2), links=links))
    probes.run(5)
    assert probes.times(Layer.GATEWAY) == []
    assert probes.times(Layer.GATEWAY, "u2")


def test_only_what_is_asked_for_is_checked_beyond_the_gateway() -> None:
    probes = prober()
    probes.run(30)
    assert {order.layer for _, order in probes.orders} == {Layer.GATEWAY}


def test_checks_are_made_at_their_interval() -> None:
    probes = prober(checks="dns", check_interval=5)
    probes.run(30)
    assert len(probes.times(Layer.DNS)) == 6


def test_an_order_says_what_to_ask_by_which_way() -> None:
    probes = prober(checks=["dns", "http", "large", "script"], http_url="http://192.0.2.80/", script=["/bin/true"])
    probes.run(5)
    orders = {o.layer: o for _, o in probes.orders if (o.uplink, o.family) == ("u1", Family.V4)}
    assert set(orders) == set(Layer)
    assert orders[Layer.GATEWAY].gateway == ip_address("100.64.1.1")
    assert orders[Layer.DNS].servers == tuple(map(ip_address, ("1.1.1.1", "8.8.8.8", "9.9.9.9")))
    assert orders[Layer.HTTP].url == "http://192.0.2.80/"
    assert orders[Layer.LARGE].size == 1500
    assert orders[Layer.SCRIPT].command == ("/bin/true",)
    assert {o.interface for o in orders.values()} == {"wan1"}
    assert {o.mark for o in orders.values()} == {probes.state.known.numbers["u1"].mark}


def test_a_page_at_an_address_is_looked_for_in_its_own_family_only() -> None:
    probes = prober(checks="http", http_url="http://192.0.2.80/")
    probes.run(5)
    assert probes.times(Layer.HTTP)
    assert not probes.times(Layer.HTTP, family=Family.V6)


def test_what_fails_while_the_network_is_down_breaks_no_layer_above_it() -> None:
    probes = prober(checks="dns", check_interval=1)
    probes.run(10)
    probes.silence("u1")
    probes.internet.layers["u1", Layer.DNS] = "no answer"
    probes.run(30)
    known = probes.state.health.checks.known["u1", Family.V4][Layer.DNS]
    assert known.verdict is LayerVerdict.OK


def test_a_result_of_another_check_changes_nothing() -> None:
    probes = prober(checks="dns")
    probes.run(5)
    before = probes.state.health.checks.known
    stale = CheckResult(uplink="u1", family=Family.V4, layer=Layer.DNS, number=99, ok=False)
    probes.take(stale)
    assert probes.state.health.checks.known == before


class Forgetful(Internet):
    """Results of checks are lost on their way: they come with the number of none."""

    def check(self, order: CheckOrder) -> tuple[float, CheckResult]:
        after, result = super().check(order)
        return after, replace(result, number=0)


def test_a_check_that_never_reports_is_made_again() -> None:
    probes = Prober(config(1, health={"checks": "dns"}), world(1, [Family.V4]))
    probes.internet = Forgetful()
    probes.run(12)
    assert len(probes.times(Layer.DNS)) >= 2


def test_a_script_that_says_no_is_named() -> None:
    probes = prober(checks="script", script=["/etc/polywan/check-lte"])
    probes.run(5)
    probes.internet.layers["u1", Layer.SCRIPT] = "exit status 3"
    probes.run(15)
    seen_now = probes.state.decision.views["u1"]
    assert seen_now.state is UplinkState.DOWN
    assert seen_now.reason == "network answers, /etc/polywan/check-lte reports a failure (exit status 3)"


def test_a_layer_that_is_no_longer_asked_for_keeps_nobody_down() -> None:
    probes = prober(checks="dns")
    probes.internet.layers["u1", Layer.DNS] = "no answer"
    probes.run(15)
    states = [probes.state.decision.views["u1"].state]
    probes.take(events.ConfigLoaded(config(2)))
    states.append(probes.state.decision.views["u1"].state)
    assert states == [UplinkState.DOWN, UplinkState.UP]


def test_a_test_makes_a_round_and_every_check_due_at_once() -> None:
    probes = prober(checks=["dns", "large"], check_interval=60)
    probes.run(20.4)
    since, before = probes.now, len(probes.orders)
    probes.take(events.TestRequested("u1"))
    probes.run(0.0)
    assert {o.layer for _, o in probes.orders[before:]} == {Layer.GATEWAY, Layer.DNS, Layer.LARGE}
    assert {o.uplink for _, o in probes.orders[before:]} == {"u1"}
    probes.run(0.1)
    assert layer_report.tested(probes.state, "u1", since)


def test_a_test_is_not_over_before_its_results_are_there() -> None:
    daemon = Engine(config(1, health={"checks": "dns"}), world(1))
    daemon.feed(events.TestRequested("u1"))
    assert not layer_report.tested(daemon.state, "u1", daemon.now)


def test_a_test_checks_every_layer_of_an_uplink_that_is_down() -> None:
    probes = prober(checks="dns")
    probes.silence("u1")
    probes.run(20)
    before = len(probes.orders)
    probes.take(events.TestRequested("u1"))
    probes.run(0.0)
    assert Layer.DNS in {o.layer for _, o in probes.orders[before:]}


def test_a_report_goes_through_the_layers_from_below() -> None:
    probes = prober(checks="dns")
    probes.internet.layers["u1", Layer.DNS] = "no answer from 192.0.2.53"
    probes.run(15)
    lines = [line for line in report(probes.state, "u1") if line.layer.startswith("IPv4")]
    assert [(line.layer, line.verdict, line.detail) for line in lines] == [
        ("IPv4 link", "ok", "100.64.1.2"),
        ("IPv4 gateway", "ok", "5.0 ms"),
        ("IPv4 targets", "ok", "3 of 3 answer"),
        ("IPv4 dns", "broken", "no answer from 192.0.2.53"),
    ]


def test_a_report_of_a_link_without_carrier_ends_there() -> None:
    daemon = Engine(config(2), world(2))
    daemon.carrier(1, carrier=False)
    assert {(line.verdict, line.detail) for line in report(daemon.state, "u1")} == {("broken", "no carrier")}


def status_of(probes: Prober) -> UplinkStatus:
    return document(probes.state, "1", 0.0, 0.0, {}).uplinks[0]


def test_the_status_has_each_layer_with_its_state() -> None:
    probes = prober(checks="dns")
    probes.internet.layers["u1", Layer.DNS] = "no answer"
    probes.run(15)
    layers = status_of(probes).layers
    assert list(layers) == ["gateway", "dns"]
    assert layers["dns"].state == "broken"
    assert layers["dns"].detail == "no answer"
    assert str(layers["dns"].since).startswith("1970-01-01T00:00:0")


def test_the_volume_of_probes_is_counted_and_told_for_metered_uplinks() -> None:
    fields = {
        "uplinks": {"u1": {"interface": "wan1", "metered": True}, "u2": {"interface": "wan2"}},
        "policies": {"default": {"tiers": [["u1", "u2"]]}},
    }
    probes = Prober(Config.model_validate(fields), world(2, [Family.V4]))
    probes.run(600)
    found = document(probes.state, "1", 0.0, 0.0, {})
    # Sixty rounds, the first five of three echoes and the others of one, 40 bytes each way, and three ARP checks.
    assert found.uplinks[0].probe_bytes == pytest.approx((5 * 3 + 55) * 80 + 3 * 120, rel=0.05)
    lines = [line for line in text(found).splitlines() if "since start" in line]
    assert lines == ["u1: probes: 5.8 kB since start, about 25.5 MB a month"]


UPLINK = '[uplinks.lte]\ninterface = "wwan0"\n'


@pytest.mark.parametrize(
    ("toml", "pace"),
    [
        ("", (1.0, 10.0)),
        ("metered = true", (10.0, 60.0)),
        ('metered = true\nhealth.interval = "3s"', (3.0, 60.0)),
        ('metered = true\n[health]\ninterval = "2s"\ncheck_interval = "20s"', (2.0, 20.0)),
    ],
)
def test_metered_uplinks_are_probed_less_often_unless_somebody_says_otherwise(
    toml: str, pace: tuple[float, float]
) -> None:
    found = load_text(UPLINK + toml).health_of("lte")
    assert (found.interval, found.check_interval) == pace


@pytest.mark.parametrize(
    ("toml", "keys"),
    [
        ('[health]\nchecks = ["http", "script"]', ["health.checks", "health.checks"]),
        ('[uplinks.lte.health]\nchecks = "http"', ["uplinks.lte.health.checks"]),
        ('[health]\nchecks = "dns"', []),
        ('[health]\nchecks = "http"\n[uplinks.lte.health]\nhttp_url = "http://a.example/"', []),
    ],
)
def test_checks_without_anything_to_look_at_are_refused(toml: str, keys: list[str]) -> None:
    read: Callable[[], object] = lambda: load_text(UPLINK + toml)  # noqa: E731 - read twice
    if not keys:
        read()
        return
    with pytest.raises(ConfigError) as caught:
        read()
    assert [p.key for p in caught.value.problems] == keys
