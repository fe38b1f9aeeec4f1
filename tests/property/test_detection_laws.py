"""Whatever a machine looks like, looking ends, every link has a verdict and a reason, and the file is good."""

from __future__ import annotations

import string
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface

from hypothesis import given
from hypothesis import strategies as st

from polywan.config import load_texts
from polywan.core.detection.candidates import survey
from polywan.core.detection.kinds import TUNNELS, Device, Hardware
from polywan.core.detection.writing import propose, text
from polywan.core.net import TABLE_MAIN, Family, TableId
from polywan.core.world.leases import Lease
from polywan.core.world.observed import Address, DefaultRoute, Link, Observed, WideRoute

NAMES = st.one_of(
    st.sampled_from(
        ["lo", "eth0", "eth0.7", "other", "probe", "docker0", "ppp0", "ppp1", "wwan0", "br0", "all", "ifb0"]
    ),
    st.text(string.ascii_letters + string.digits + "_.@+-", min_size=1, max_size=15),
    st.text(min_size=1, max_size=15),
)
KINDS = st.one_of(
    st.sampled_from(["", "veth", "macvlan", "vlan", "ppp", "bridge", "bond", "vrf", "dummy"]),
    st.sampled_from(sorted(TUNNELS)),
)
HALF = IPv4Network("0.0.0.0/1")
V4 = st.one_of(
    st.builds(IPv4Address, st.integers(0, 2**32 - 1)),
    st.sampled_from([IPv4Address(f"192.0.2.{n}") for n in range(1, 5)]),
)
V6 = st.ip_addresses(v=6)
DRIVERS = st.sampled_from(["", "e1000e", "qmi_wwan", "cdc_ncm", "\x1b[2J"])


@st.composite
def machines(draw: st.DrawFn) -> tuple[Observed, Hardware, dict[str, Lease]]:
    names = draw(st.lists(NAMES, unique=True, max_size=9))
    links = {
        name: Link(
            index=index,
            name=name,
            up=draw(st.booleans()),
            carrier=draw(st.booleans()),
            kind=draw(KINDS),
            point_to_point=draw(st.booleans()),
            master=draw(st.sampled_from([0, 0, 0, 1, 2, 77])),
            member_of=draw(st.sampled_from(["", "bridge", "bond", "vrf", "openvswitch"])),
            parent=draw(st.sampled_from([0, 1])),
        )
        for index, name in enumerate(names, start=1)
    }
    if not names:
        return Observed(links={}), Hardware(), {}
    some = st.sampled_from(names)
    v4 = st.builds(lambda a, n: IPv4Interface((a, n)), V4, st.integers(0, 32))
    v6 = st.builds(lambda a, n: IPv6Interface((a, n)), V6, st.integers(0, 128))
    tables = st.sampled_from([TABLE_MAIN, TableId(7), TableId(200)])
    routes = st.one_of(
        st.builds(DefaultRoute, family=st.just(Family.V4), link=some, via=st.one_of(st.none(), V4), table=tables),
        st.builds(DefaultRoute, family=st.just(Family.V6), link=some, via=st.one_of(st.none(), V6), table=tables),
    )
    observed = Observed(
        links=links,
        addresses=tuple(draw(st.lists(st.builds(Address, some, st.one_of(v4, v6)), max_size=12))),
        defaults=tuple(draw(st.lists(routes, max_size=12))),
        parts=tuple(draw(st.lists(st.builds(WideRoute, st.just(HALF), some), max_size=2))),
    )
    hardware = Hardware(
        devices=draw(st.dictionaries(some, st.builds(Device, driver=DRIVERS, speed=st.integers(0, 100000)))),
        sessions=tuple(draw(st.lists(some, max_size=3))),
        l2tp=draw(st.frozensets(some, max_size=2)),
        serial=tuple(draw(st.lists(st.just("ttyUSB0"), max_size=1))),
    )
    leases = {
        name: Lease(link=name, address=IPv4Address(1), router=draw(V4), expires=None, program="dhcpcd")
        for name in draw(st.lists(some, max_size=3))
    }
    return observed, hardware, leases


@given(machines(), st.booleans(), st.booleans())
def test_every_link_is_judged_once_and_the_file_is_good(
    machine: tuple[Observed, Hardware, dict[str, Lease]], forwarding: bool, accept: bool
) -> None:
    found = survey(*machine)
    assert len(found.seen) + len(found.passed_over) == len(machine[0].links)
    for seen in found.seen:
        assert seen.why
        assert (seen.link + seen.why + seen.note).isprintable()
        assert not (seen.lan and seen.verdict == "uplink")
    accepted = [seen.link for seen in found.candidates if accept]
    proposal = propose(found, accepted, forwarding=forwarding)
    file = text(proposal)
    assert file == text(propose(survey(*machine), accepted, forwarding=forwarding))
    if not proposal.uplinks:
        return
    loaded = load_texts({"polywan.toml": file})
    assert loaded.warnings == ()
    written = [(uplink.interface, uplink.metered) for uplink in loaded.config.uplinks.values()]
    assert written == [(entry.link, bool(entry.metered)) for entry in proposal.uplinks]
    # The same names again for the same uplinks: a second run shows no difference.
    names = {entry.place: entry.name for entry in proposal.uplinks}
    assert propose(found, accepted, forwarding=forwarding, names=names) == proposal
