"""The chains for devices that several uplinks share: what tells whose a packet is."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import Any

from polywan.config import Config
from polywan.core.net import Family
from polywan.core.plan.plan import ActualState
from polywan.core.ruleset.fast_path import fast_path
from polywan.core.ruleset.model import NftTable
from polywan.core.ruleset.second_table import keep
from polywan.core.state.events import ReadDone
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed, Router
from polywan.core.world.world import World
from support.engine_world import Engine

FIRST, SECOND = "02:00:00:00:00:01", "02:00:00:00:00:02"


def conf(*uplinks: dict[str, Any], **more: Any) -> Config:
    known = {f"u{n}": {"interface": "card0", **keys} for n, keys in enumerate(uplinks, start=1)}
    return Config.model_validate({"uplinks": known, **more})


TWO = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1"})
TWINS = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.1.254"})


def seen(
    *macs: str, addresses: tuple[str, ...] = ("192.168.1.2/24", "192.168.2.2/24"), config: Config = TWO
) -> Observed:
    card = Link(index=2, name="card0", up=True, carrier=True)
    vias = [uplink.gateway for uplink in config.uplinks.values()]
    routers = tuple(Router("card0", via, mac) for via, mac in zip(vias, macs, strict=False) if via != "auto" and mac)
    main = DefaultRoute(family=Family.V4, link="card0", via=ip_address("192.168.1.1"))
    lan = Link(index=3, name="lan0", up=True, carrier=True)
    return Observed(
        links={"card0": card, "lan0": lan},
        addresses=(
            *(Address("card0", ip_interface(a)) for a in addresses),
            Address("lan0", ip_interface("10.0.0.1/24")),
        ),
        defaults=(main,),
        routers=routers,
        flowtable=True,
    )


def decided(engine: Engine) -> NftTable:
    desired = engine.state.decision.desired
    assert desired is not None
    return desired.nft


def table(config: Config, observed: Observed) -> NftTable:
    return decided(Engine(config, observed))


def texts(table: NftTable, chain: str) -> list[str]:
    return [rule.text for rule in table.chains[chain].rules]


def test_nothing_of_it_is_there_while_each_uplink_has_its_device() -> None:
    alone = table(conf({"gateway": "192.168.1.1"}), seen())
    assert not [name for name in alone.chains if name.startswith("shared_")]
    assert alone.maps["arrival"].elements == {"card0": "goto to_u1"}


def test_what_comes_in_is_told_by_its_router_before_its_address() -> None:
    first, second, rest = texts(table(TWO, seen(FIRST, SECOND)), "shared_arrival")
    assert first.startswith("meta nfproto ipv4 iifname . ether saddr vmap")
    assert f'"card0" . {SECOND} : goto to_u2' in first
    assert second.startswith("iifname . ct original ip daddr vmap")
    assert '"card0" . 192.168.2.2 : goto to_u2' in second
    assert rest == "accept"


def test_a_hardware_address_that_two_routers_have_tells_nothing() -> None:
    assert not any("ether saddr" in text for text in texts(table(TWO, seen(FIRST, FIRST)), "shared_arrival"))


def test_an_address_that_two_uplinks_have_tells_nothing() -> None:
    observed = seen(FIRST, SECOND, addresses=("192.168.1.2/24",), config=TWINS)
    found = texts(table(TWINS, observed), "shared_arrival")
    assert len(found) == 2
    assert "ether saddr" in found[0]


def test_a_router_that_becomes_known_changes_the_table() -> None:
    engine = Engine(TWO, seen())
    before = texts(decided(engine), "shared_arrival")
    engine.feed(ReadDone(seen(FIRST, SECOND), ActualState()))
    assert texts(decided(engine), "shared_arrival") != before


def test_the_kill_switch_asks_for_the_router() -> None:
    config = conf({"gateway": "192.168.1.1"}, {"gateway": "192.168.2.1"}, rules=[{"from": "10.0.0.5", "only": ["u2"]}])
    found = texts(table(config, seen()), "kill_switch_1")
    assert found == ['oifname . rt ip nexthop { "card0" . 192.168.2.1 } accept', "counter drop"]


def test_the_second_table_knows_them_too() -> None:
    whole = table(TWO, seen(FIRST, SECOND))
    kept = keep(whole, 0x3F00_0000, ipsec=False)
    assert kept.chains["shared_arrival"] == whole.chains["shared_arrival"]
    assert any("would leave untranslated" in rule.why for rule in kept.chains["prerouting"].rules)


def test_what_came_in_by_such_a_device_stays_on_the_slow_path() -> None:
    engine = Engine(TWO, seen())
    config = engine.state.known.config
    assert config is not None
    world = World(observed=seen(), reach=engine.state.decision.reach, sysctls={}, retired=frozenset())
    fast = fast_path(config, world, {("u1", Family.V4), ("u2", Family.V4)})
    assert fast is not None
    added = [rule.why for rule in fast.chains["forward"].rules if "flow add" in rule.text]
    assert [why.partition(" (")[0] for why in added] == ["leaves by its uplink"]


def test_each_translates_by_its_own_address() -> None:
    twins = conf(
        {"gateway": "192.168.1.1", "source": "192.168.1.2"}, {"gateway": "192.168.1.1", "source": "192.168.1.3"}
    )
    observed = seen(addresses=("192.168.1.2/24", "192.168.1.3/24"), config=twins)
    found = [text for text in texts(table(twins, observed), "nat") if text.startswith('oifname "card0" ct mark')]
    assert [text.rpartition(" ipv4 ")[2] for text in found] == ["masquerade", "snat ip to 192.168.1.3"]
