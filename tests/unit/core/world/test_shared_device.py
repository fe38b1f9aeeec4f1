"""Which of a device's addresses is whose, where several uplinks share it; and what is told of the rest."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from itertools import product
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.net import FAMILIES, Family
from polywan.core.resolved import resolve
from polywan.core.world.observed import Address, Link, Observed
from polywan.core.world.paths import NoPath, Path, Reach, reach
from polywan.core.world.shared_device import NextHop, next_hops, own_addresses

FOUR = ("192.168.1.2/24", "192.168.2.2/24", "192.168.1.3/24")
SIX = ("2001:db8:a::2/64", "2001:db8:b::2/64")


def conf(*uplinks: dict[str, Any]) -> Config:
    known = {f"u{n}": {"interface": "card0", **keys} for n, keys in enumerate(uplinks, start=1)}
    return Config.model_validate({"uplinks": known})


def seen(*addresses: str, point_to_point: bool = False) -> Observed:
    card = Link(index=2, name="card0", up=True, carrier=True, point_to_point=point_to_point)
    return Observed(links={"card0": card}, addresses=tuple(Address("card0", ip_interface(a)) for a in addresses))


def own(config: Config, observed: Observed, family: Family = Family.V4) -> dict[str, list[str]]:
    resolved = resolve(config, {})
    return {
        name: [str(a) for a in own_addresses(uplink, resolved.others(name), observed, family)]
        for name, uplink in resolved.uplinks.items()
    }


def judged(config: Config, observed: Observed) -> dict[tuple[str, Family], Reach]:
    return reach(resolve(config, {}), observed, {})


def test_an_uplink_that_has_its_device_alone_has_all_addresses() -> None:
    assert own(conf({}), seen(*FOUR)) == {"u1": list(FOUR)}


def test_an_address_in_the_gateways_network_is_the_uplinks() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1"})
    assert own(config, seen(*FOUR)) == {"u1": [FOUR[0], FOUR[2]], "u2": [FOUR[1]]}


def test_a_source_is_nobody_elses() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.1.254", "source": "192.168.1.3"})
    assert own(config, seen(FOUR[0], FOUR[2])) == {"u1": [FOUR[0]], "u2": [FOUR[2]]}


def test_with_one_address_for_all_everybody_has_it() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.1.254"})
    assert own(config, seen(FOUR[0])) == {"u1": [FOUR[0]], "u2": [FOUR[0]]}


def test_a_gateway_outside_of_every_network_takes_what_no_other_one_claims() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "10.0.0.1"})
    assert own(config, seen(*FOUR)) == {"u1": [FOUR[0], FOUR[2]], "u2": [FOUR[1]]}
    path = judged(config, seen(*FOUR))["u2", Family.V4]
    assert isinstance(path, Path)
    assert path.onlink


def test_in_ipv6_the_prefix_tells() -> None:
    config = conf(
        {"gateway6": "fe80::1", "prefix6": "2001:db8:a::/56"}, {"gateway6": "fe80::2", "prefix6": "2001:db8:b::/56"}
    )
    assert own(config, seen(*SIX), Family.V6) == {"u1": [SIX[0]], "u2": [SIX[1]]}


def test_an_uplink_whose_address_has_gone_has_none_and_takes_none_of_the_others() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1"}, {"gateway": "10.0.0.1"})
    assert own(config, seen(FOUR[1])) == {"u1": [], "u2": [FOUR[1]], "u3": []}
    path = judged(config, seen(FOUR[1]))["u1", Family.V4]
    assert path == NoPath(
        reason="no address of card0 (192.168.2.2) is in the gateway's network, nor its source: set source"
    )


def test_a_source_that_is_not_there_is_replaced_by_no_other_address() -> None:
    same = {"gateway": "192.168.1.1"}
    config = conf({**same, "source": "192.168.1.2"}, {**same, "source": "192.168.1.3"})
    assert own(config, seen(FOUR[0])) == {"u1": [FOUR[0]], "u2": []}


def test_a_prefix_that_is_not_on_the_card_leaves_its_addresses_to_nobody() -> None:
    config = conf(
        {"gateway6": "fe80::1", "prefix6": "2001:db8:a000::/56"},
        {"gateway6": "fe80::2", "prefix6": "2001:db8:b000::/56"},
    )
    assert own(config, seen(*SIX), Family.V6) == {"u1": [], "u2": []}


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_goes_the_others_keep_what_they_have(family: Family) -> None:
    """A law: an address that goes takes nothing from the others, and gives them nothing that somebody names."""
    known = FOUR if family is Family.V4 else SIX
    keys = [{"gateway": "192.168.1.1"}, {"gateway": "10.0.0.1"}, {"gateway": "192.168.2.1", "source": "192.168.2.2"}]
    if family is Family.V6:
        keys = [
            {"gateway6": "fe80::1", "source": "2001:db8:a::2"},
            {"gateway6": "fe80::1"},
            {"gateway6": "fe80::1", "prefix6": "2001:db8:b::/64"},
        ]
    for first, second in product(keys, keys):
        whole = own(conf(first, second), seen(*known), family)
        for gone in known:
            after = own(conf(first, second), seen(*(a for a in known if a != gone)), family)
            for name, addresses in whole.items():
                assert after[name] == [a for a in addresses if a != gone], (first, second, gone)


def test_a_gateway_that_is_an_address_of_this_box_leads_nowhere() -> None:
    config = conf({"gateway": "192.168.1.2"})
    assert judged(config, seen(*FOUR))["u1", Family.V4] == NoPath(
        reason="gateway 192.168.1.2 is an address of this box"
    )


def test_a_family_without_a_gateway_is_not_the_uplinks() -> None:
    config = conf({"gateway": "192.168.1.1", "gateway6": "fe80::1"}, {"gateway": "192.168.2.1"})
    assert set(judged(config, seen(*FOUR, *SIX))) == {("u1", Family.V4), ("u1", Family.V6), ("u2", Family.V4)}


def test_each_has_its_router_and_prefers_its_address() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1"})
    for name, via, source in (("u1", "192.168.1.1", "192.168.1.2"), ("u2", "192.168.2.1", "192.168.2.2")):
        path = judged(config, seen(*FOUR[:2]))[name, Family.V4]
        assert isinstance(path, Path)
        assert (str(path.via), str(path.source), path.onlink) == (via, source, False)


def test_a_link_with_one_peer_is_not_for_two() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1"})
    for path in judged(config, seen(*FOUR, point_to_point=True)).values():
        assert path == NoPath(reason="card0 leads to one peer: only one uplink can use it")


def test_routers_are_asked_for_where_a_device_is_shared_and_nowhere_else() -> None:
    assert next_hops(resolve(conf({"gateway": "192.168.1.1"}), {})) == frozenset()
    shared = resolve(conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1", "gateway6": "fe80::1"}), {})
    assert next_hops(shared) == {NextHop("card0", ip_address(via)) for via in ("192.168.1.1", "192.168.2.1", "fe80::1")}
