"""What the table says about frames that a bridge forwards."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from polywan.config import Config
from polywan.core.ruleset.model import NftTable
from polywan.core.ruleset.neighbours.bridged import bridged_in, bridged_out
from polywan.core.state.events import LinkChanged
from polywan.core.world.observed import Link, Observed, links_by_name
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import attribute, number
from support.engine_world import Engine, world

MAC = "02:00:00:00:00:07"


def bridge(name: str = "br0", mac: str = MAC, kind: str = "bridge") -> Link:
    return Link(index=70, name=name, up=True, carrier=True, kind=kind, mac=mac)


def seen(*links: Link) -> Observed:
    base = world(2)
    return replace(base, links={**base.links, **links_by_name(links)})


def table(observed: Observed) -> NftTable:
    config = Config.model_validate(
        {
            "uplinks": {"u1": {"interface": "wan1"}, "u2": {"interface": "wan2"}},
            "rules": [{"from": "192.0.2.0/24", "only": "u1"}],
        }
    )
    desired = Engine(config, observed).state.decision.desired
    assert desired is not None
    return desired.nft


def texts(table: NftTable, chain: str) -> list[str]:
    return [rule.text for rule in table.chains[chain].rules]


def test_in_prerouting_what_is_not_for_the_bridges_own_address_is_left_alone_first_of_all() -> None:
    first = texts(table(seen(bridge())), "classify")[0]
    assert first == f'iifname {{ "br0" }} iifname . ether daddr != {{ "br0" . {MAC} }} accept'


@pytest.mark.parametrize("chain", ["nat", "clamp"])
def test_in_postrouting_what_no_device_of_ours_received_and_has_a_header_is_left_alone_first_of_all(
    chain: str,
) -> None:
    first = texts(table(seen(bridge())), chain)[0]
    assert first == 'iif 0 oifname { "br0" } ether saddr != 00:00:00:00:00:00 accept'


def test_the_kill_switch_drops_no_bridged_frame() -> None:
    rules = texts(table(seen(bridge())), "kill_switch")
    assert rules.index(bridged_out(seen(bridge()))[0].text) < min(n for n, text in enumerate(rules) if "drop" in text)


@pytest.mark.parametrize("links", [(), (bridge(kind="veth"),), (bridge(mac=""),), (bridge("br 0"),)])
def test_without_a_bridge_that_can_be_named_nothing_is_said(links: tuple[Link, ...]) -> None:
    assert bridged_in(seen(*links)) == bridged_out(seen(*links)) == ()
    assert "ether" not in table(seen(*links)).render()


def test_all_bridges_share_one_rule() -> None:
    observed = seen(bridge("br0", "02:00:00:00:00:01"), bridge("br1", "02:00:00:00:00:02"))
    (rule,) = bridged_in(observed)
    assert '{ "br0" . 02:00:00:00:00:01, "br1" . 02:00:00:00:00:02 }' in rule.text


def test_a_bridge_that_takes_the_address_of_a_new_port_is_known_by_that_one() -> None:
    daemon = Engine(Config.model_validate({"uplinks": {"u1": {"interface": "wan1"}}}), seen(bridge()))
    daemon.feed(LinkChanged(bridge(mac="02:00:00:00:00:01")))
    assert daemon.state.decision.desired is not None
    assert '"br0" . 02:00:00:00:00:01' in texts(daemon.state.decision.desired.nft, "classify")[0]


@pytest.mark.parametrize(("kind", "known"), [(b"bridge\0", MAC), (b"veth\0", "")])
def test_of_link_layer_addresses_only_those_of_bridges_are_read(kind: bytes, known: str) -> None:
    body = struct.pack("=BxHiII", 0, 1, 70, 0x10001, 0)
    body += attribute(3, b"br0\0") + number(4, 1500) + attribute(1, bytes.fromhex(MAC.replace(":", "")))
    body += attribute(18, attribute(1, kind))
    link = rt.decode_link(body)
    assert link is not None
    assert (link.name, link.mac) == ("br0", known)
