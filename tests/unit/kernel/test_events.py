"""Notifications as events: what is ours, what is a stranger's, and what is noise."""

from __future__ import annotations

import struct
from ipaddress import ip_interface

import pytest

from polywan.core.net import Family, RulePriority, TableId
from polywan.core.routing.routes import IpRule, Route
from polywan.core.state.events import ForeignStateChanged, LinkChanged, LinkRemoved, OwnStateChanged
from polywan.core.world.observed import Link
from polywan.kernel.netlink import policy_rules
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import Message, Request, attribute
from polywan.kernel.notifications import Translator

OWN, STRANGER = 100, 200

NEWGEN, NEWRULE, INET, IP = 0x0A0F, 0x0A06, 1, 2
NEWCHAIN, NEWELEMENT = 0x0A03, 0x0A0C
OURS = b"polywan\0"


def link_message(kind: int, link: Link) -> Message:
    flags = link.up | link.carrier << 16
    body = struct.pack("=BxHiII", 0, 1, link.index, flags, 0)
    body += attribute(3, link.name.encode() + b"\0") + attribute(4, struct.pack("=I", link.mtu))
    return Message(kind, 0, 0, 0, body)


def wan(name: str = "wan1", *, up: bool = True) -> Link:
    return Link(index=7, name=name, up=up, carrier=up)


def translator(*links: Link) -> Translator:
    return Translator(OWN, lambda port: port == OWN, links)


def as_notification(request: Request, port: int, protocol: int = 200) -> Message:
    body = request.body.replace(attribute(21, b"\xc8"), attribute(21, bytes((protocol,))))
    if request.kind in {rt.NEWROUTE, rt.DELROUTE}:
        body = body[:5] + bytes((protocol,)) + body[6:]
    return Message(request.kind, 0, 0, port, body)


ROUTE = Route(family=Family.V4, table=TableId(6001), metric=1, link=None)
RULE = IpRule(family=Family.V6, priority=RulePriority(6110), table=TableId(6001))


def test_a_changed_link_is_reported_once() -> None:
    watch = translator(wan())
    down = link_message(rt.NEWLINK, wan(up=False))
    assert [watch.route(down), watch.route(down)] == [[LinkChanged(wan(up=False))], []]


def test_a_renamed_link_is_removed_and_appears() -> None:
    events = translator(wan()).route(link_message(rt.NEWLINK, wan("isp1")))
    assert events == [LinkRemoved("wan1"), LinkChanged(wan("isp1"))]


def test_a_link_that_comes_back_is_reported_again() -> None:
    watch = translator(wan())
    assert watch.route(link_message(rt.DELLINK, wan())) == [LinkRemoved("wan1")]
    assert watch.route(link_message(rt.NEWLINK, wan())) == [LinkChanged(wan())]


@pytest.mark.parametrize("request_", [rt.del_route(ROUTE, 0), rt.put_route(ROUTE, 0)], ids=["deleted", "put"])
def test_a_route_of_ours_is_touched_by_strangers_only(request_: Request) -> None:
    watch = translator()
    assert watch.route(as_notification(request_, STRANGER)) == [OwnStateChanged("route")]
    assert watch.route(as_notification(request_, 0)) == [OwnStateChanged("route")]
    assert watch.route(as_notification(request_, OWN)) == []


@pytest.mark.parametrize(
    "request_", [policy_rules.del_rule(RULE), policy_rules.add_rule(RULE)], ids=["deleted", "added"]
)
def test_a_rule_of_ours_is_touched_by_strangers_only(request_: Request) -> None:
    watch = translator()
    assert watch.route(as_notification(request_, STRANGER)) == [OwnStateChanged("rule")]
    assert watch.route(as_notification(request_, OWN)) == []


def test_a_strangers_rule_and_default_route_are_the_worlds() -> None:
    watch = translator()
    assert watch.route(as_notification(policy_rules.add_rule(RULE), STRANGER, protocol=3)) == [
        ForeignStateChanged("rule")
    ]
    assert watch.route(as_notification(rt.put_route(ROUTE, 0), STRANGER, protocol=3)) == [ForeignStateChanged("route")]


def test_a_route_to_a_network_is_noise() -> None:
    message = as_notification(rt.put_route(ROUTE, 0), STRANGER, protocol=3)
    body = message.body[:1] + b"\x18" + message.body[2:]
    assert translator().route(message._replace(body=body)) == []


def transaction(table: bytes, port: int, family: int = INET, name: bytes = b"nft\0") -> list[Message]:
    header = bytes((family, 0, 0, 0))
    generation = b"\0\0\0\0" + attribute(2, struct.pack(">I", 4242)) + attribute(3, name)
    change = Message(NEWRULE, 0, 0, port, header + attribute(1, table) + attribute(2, b"prerouting\0"))
    return [change, Message(NEWGEN, 0, 0, port, generation)]


def events_of(watch: Translator, messages: list[Message]) -> list[object]:
    return [event for message in messages for event in watch.nftables(message)]


def test_a_transaction_on_our_table_names_its_author() -> None:
    assert events_of(translator(), transaction(OURS, STRANGER)) == [OwnStateChanged("table", "nft (pid 4242)")]


def test_a_transaction_of_our_own_is_no_news() -> None:
    assert events_of(translator(), transaction(OURS, OWN)) == []


@pytest.mark.parametrize(
    ("table", "family"),
    [(b"theirs\0", INET), (OURS, IP)],
    ids=["another table", "another family's table of the same name"],
)
def test_of_other_tables_it_is_told_whether_chains_rules_or_elements_have_changed(table: bytes, family: int) -> None:
    watch = translator()
    rule, done = transaction(table, STRANGER, family)
    element, chain = rule._replace(kind=NEWELEMENT), rule._replace(kind=NEWCHAIN)
    assert events_of(watch, [rule, done]) == [ForeignStateChanged("filter")]
    assert events_of(watch, [element, done]) == [ForeignStateChanged("elements")]
    assert events_of(watch, [element, rule, done]) == [ForeignStateChanged("filter")]
    assert events_of(watch, [element, chain, rule, done]) == [ForeignStateChanged("chain")]
    assert events_of(watch, [done]) == []


def test_a_strangers_transaction_after_ours_is_still_seen() -> None:
    messages = transaction(OURS, OWN) + transaction(OURS, STRANGER)
    assert events_of(translator(), messages) == [OwnStateChanged("table", "nft (pid 4242)")]


def test_a_hostile_program_name_loses_its_teeth() -> None:
    (event,) = events_of(translator(), transaction(OURS, STRANGER, name=b"\x1b]0;x\x07\0"))
    assert event == OwnStateChanged("table", "\\x1b]0;x\\x07 (pid 4242)")


def test_what_links_became_while_notifications_were_lost_is_told() -> None:
    gone, anew = Link(index=8, name="wan2", up=True, carrier=True), Link(index=9, name="wan3", up=True, carrier=True)
    watch = translator(wan(), gone, anew)
    made = Link(index=11, name="wan3", up=True, carrier=True)
    events = watch.missed([wan(up=False), made])
    assert events == [LinkRemoved("wan2"), LinkRemoved("wan3"), LinkChanged(wan(up=False)), LinkChanged(made)]
    assert watch.missed([wan(up=False), made]) == []


@pytest.mark.parametrize(("message", "link"), [("fe80::1/64", "wan1"), ("192.0.2.1/24", "wan1")])
def test_an_address_names_its_link(message: str, link: str) -> None:
    ip = ip_interface(message)
    body = struct.pack("=BBBBi", 2 if ip.version == 4 else 10, 64, 0, 0, 7) + attribute(1, ip.ip.packed)
    (event,) = translator(wan()).route(Message(rt.NEWADDR, 0, 0, STRANGER, body))
    assert isinstance(event, ForeignStateChanged)
    assert (event.what, event.link) == ("address", link)


def test_an_address_touches_the_routes_of_its_device_and_those_that_name_it() -> None:
    touched: list[int | bytes | None] = []
    watch = Translator(OWN, lambda port: port == OWN, [wan()], touched.append)
    ip = ip_interface("192.0.2.1")
    body = struct.pack("=BBBBi", 2, 24, 0, 0, 7) + attribute(1, ip.ip.packed)
    watch.route(Message(rt.DELADDR, 0, 0, STRANGER, body))
    assert touched == [7, ip.ip.packed]


def setting_message(index: int) -> Message:
    """As the kernel tells of a changed rp_filter (RTM_NEWNETCONF)."""
    return Message(80, 0, 0, STRANGER, struct.pack("=B3x", 2) + attribute(1, struct.pack("=i", index)))


@pytest.mark.parametrize(("index", "link"), [(7, "wan1"), (-1, None), (-2, None)])
def test_a_changed_setting_asks_for_a_read_and_names_its_device(index: int, link: str | None) -> None:
    (event,) = translator(wan()).route(setting_message(index))
    assert event == ForeignStateChanged("setting")
    assert isinstance(event, ForeignStateChanged)
    assert event.link == link


def test_settings_of_a_device_that_is_being_made_ask_for_nothing() -> None:
    assert translator(wan()).route(setting_message(8)) == []
