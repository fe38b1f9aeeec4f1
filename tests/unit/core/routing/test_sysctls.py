"""Kernel settings: which are wanted, and which are somebody's decision."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from polywan.core.net import Family
from polywan.core.plan.plan import ActualState, SetSysctl
from polywan.core.resolved import resolve
from polywan.core.routing.sysctls import build_sysctls
from polywan.core.state.events import ReadDone
from polywan.core.world.paths import Path
from support.engine_world import Engine, config, world

RA = "net/ipv6/conf/wan1/accept_ra"
FORWARDING: dict[str, Any] = {"global": {"forwarding": True}}


def wanted(current: dict[str, str], **uplink: object) -> dict[str, str]:
    configuration = config(1, **FORWARDING)
    changed = configuration.uplinks["u1"].model_copy(update=uplink)
    configuration = configuration.model_copy(update={"uplinks": {"u1": changed}})
    return {s.path: s.value for s in build_sysctls(resolve(configuration, {}), world(1), {}, current)}


@pytest.mark.parametrize(("now", "then"), [("1", "2"), ("2", "2"), ("0", None), (None, "2")])
def test_advertisements_are_taken_while_forwarding_unless_somebody_refused_them(
    now: str | None, then: str | None
) -> None:
    assert wanted({RA: now} if now else {}).get(RA) == then


@pytest.mark.parametrize(
    ("families", "then"), [(None, "2"), (("ipv4",), None), (("ipv6",), "2"), (("ipv4", "ipv6"), "2")]
)
def test_advertisements_are_left_alone_where_there_is_no_ipv6(
    families: tuple[str, ...] | None, then: str | None
) -> None:
    assert wanted({RA: "1"}, families=families).get(RA) == then


def test_advertisements_do_not_matter_on_a_box_that_does_not_forward() -> None:
    assert RA not in {s.path for s in build_sysctls(resolve(config(1), {}), world(1), {}, {RA: "1"})}


def test_advertisements_that_somebody_refuses_later_stay_refused() -> None:
    daemon = Engine(config(1, **FORWARDING), world(1), ActualState(sysctls={RA: "1"}))
    actual = daemon.state.known.actual
    assert actual is not None
    assert actual.sysctls[RA] == "2"
    for value, writes in (("0", []), ("1", ["2"])):
        changed = replace(actual, sysctls={**actual.sysctls, RA: value})
        effects = daemon.feed(ReadDone(world(1), changed))
        ops = [op for e in daemon.plans(effects) for op in e.plan.ops if isinstance(op, SetSysctl)]
        assert [op.sysctl.value for op in ops] == writes


OWN = "net/ipv6/conf/wan1/use_oif_addrs_only"


def test_a_link_with_an_address_of_its_own_lends_no_other() -> None:
    assert wanted({})[OWN] == "1"


def test_a_link_that_speaks_by_the_address_of_another_may_do_so() -> None:
    bare = replace(world(1), addresses=tuple(a for a in world(1).addresses if a.ip.version == 4))
    lent = Path(link="wan1", via=None, onlink=False, addresses=(), prefixes=(), source=ip_address("2001:db8:1::1"))
    settings = {s.path: s.value for s in build_sysctls(resolve(config(1), {}), bare, {("u1", Family.V6): lent}, {})}
    assert settings[OWN] == "0"
    assert OWN not in {s.path for s in build_sysctls(resolve(config(1), {}), bare, {}, {OWN: "1"})}
