"""Drift is what another program changed of what polywan wrote on this very object; no life of a link is drift."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Final, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.config import Config
from polywan.core.routing.sysctls import Sysctl
from polywan.core.state.events import ConfigLoaded
from polywan.core.world.observed import Link
from polywan.sim.simulation import Simulation
from support.engine_world import config, link, world
from support.examples import examples

UPLINKS: Final = 3
NEW_DEVICE: Final = {
    "ipv4/rp_filter": "1",
    "ipv4/ignore_routes_with_linkdown": "0",
    "ipv6/ignore_routes_with_linkdown": "0",
    "ipv6/use_oif_addrs_only": "0",
    "ipv6/accept_ra": "1",
}
READ_AGAIN: Final = 15.0
"""Seconds in which the daemon reads at least once, whatever it has heard."""

STEPS: Final = (
    *("gone", "made", "down", "up", "unplugged", "plugged"),
    *("address lost", "addresses", "routes", "another address", "flap unheard"),
    *("forwarding", "no forwarding", "restart"),
)
Life: TypeAlias = list[tuple[float, str, int]]
pauses = st.one_of(st.just(0.0), st.floats(0.0, 0.05), st.floats(0.0, 3.0))
lives = st.lists(st.tuples(pauses, st.sampled_from(STEPS), st.integers(1, UPLINKS)), min_size=1, max_size=14)


class Box:
    """A daemon with three uplinks, to whose links everything may happen that the kernel and their managers do."""

    def __init__(self, *, point_to_point: bool) -> None:
        devices = (link(n, point_to_point=point_to_point) for n in range(1, UPLINKS + 1))
        self.whole = replace(world(UPLINKS), links={device.name: device for device in devices})
        self.sim = Simulation(self.whole)
        self.kernel = self.sim.kernel
        self.kernel.new_device = NEW_DEVICE
        for device in self.whole.links:
            self.kernel.begin_settings(device)
        self.kernel.sysctls["net/ipv4/conf/all/rp_filter"] = "1"
        self.forwarding = True
        self._indexes = count(100)
        self.sim.start(self._config())
        self.sim.run_until(1.0)

    def live(self, life: Life) -> None:
        for pause, what, number in life:
            self.sim.run_until(self.sim.now + pause)
            self._happen(what, f"wan{number}")
        self.sim.run_until(self.sim.now + READ_AGAIN)

    @property
    def repairs(self) -> list[str]:
        return [line.text for _, line in self.sim.log if line.event == "drift.repaired"]

    def _config(self) -> Config:
        health = {"hold_down": 1, "slow_start": 0}
        return config(UPLINKS, (), health=health, **{"global": {"forwarding": self.forwarding}})

    def _happen(self, what: str, name: str) -> None:
        there = self.kernel.links.get(name)
        if what == "restart":
            self.sim.start(self._config())
        elif what in {"forwarding", "no forwarding"}:
            self.forwarding = what == "forwarding"
            self.sim.take(ConfigLoaded(self._config()))
        elif there is not None:
            self._live_on(what, there)
        elif what == "made":
            new = replace(self.whole.links[name], index=next(self._indexes), up=False, carrier=False)
            self.kernel.set_link(new)

    def _live_on(self, what: str, there: Link) -> None:
        match what:
            case "gone":
                self.kernel.remove_link(there.name)
            case "down" | "up":
                self.kernel.set_link(replace(there, up=what == "up", carrier=what == "up"))
            case "unplugged" | "plugged":
                self.kernel.set_link(replace(there, carrier=there.up and what == "plugged"))
            case "address lost":
                self._lose_addresses(there.name)
            case "addresses":
                self._give_addresses(there.name)
            case "another address":
                self._lose_addresses(there.name)
                self._give_addresses(there.name)
            case "routes":
                for default in self.whole.defaults:
                    if default.link == there.name and there.up and default not in self.kernel.defaults:
                        self.kernel.add_default(default)
            case "flap unheard":
                self.kernel.deaf = True
                self.kernel.set_link(replace(there, up=False, carrier=False))
                self.kernel.set_link(there)
                self.kernel.deaf = False
                self.kernel.lose_events()

    def _lose_addresses(self, name: str) -> None:
        for address in [a for a in self.kernel.addresses if a.link == name]:
            self.kernel.remove_address(address)

    def _give_addresses(self, name: str) -> None:
        for address in self.whole.addresses:
            if address.link == name and address not in self.kernel.addresses:
                self.kernel.add_address(address)


@given(lives, st.booleans())
@settings(max_examples=examples(150))
def test_no_life_of_a_link_is_reported_as_drift(life: Life, point_to_point: bool) -> None:
    box = Box(point_to_point=point_to_point)
    box.live(life)
    assert box.repairs == []


@given(lives, st.booleans(), st.integers(1, UPLINKS))
@settings(max_examples=examples(60))
def test_what_another_program_changes_afterwards_is_reported(life: Life, point_to_point: bool, number: int) -> None:
    box = Box(point_to_point=point_to_point)
    box.live([*life, (0.0, "made", number)])
    setting = f"net/ipv4/conf/wan{number}/ignore_routes_with_linkdown"
    box.kernel.tamper_sysctl(Sysctl(setting, "0"))
    box.live([])
    (text,) = box.repairs
    assert text.endswith(f"sysctl {setting.replace('/', '.')} = 1 (was 0)")
