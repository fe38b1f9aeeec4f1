"""Lease files are a stranger's text: whatever they hold, reading ends, and nothing but addresses comes of it."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.world import leases
from polywan.core.world.leases import Lease

WORDS = st.sampled_from(
    [
        "lease {\n",
        "}\n",
        '  interface "wan1";\n',
        "  fixed-address 100.64.1.2;\n",
        "  option routers ",
        "  option rfc3442-classless-static-routes ",
        "0,100,64,1,1",
        "100.64.1.1",
        "  expire 4 2026/11/26 09:00:00;\n",
        "  expire epoch 99999999999999;\n",
        "ADDRESS=100.64.1.2\n",
        "ROUTER=",
        "CLASSLESS_ROUTES=0.0.0.0/0,",
        ";\n",
        "\n",
        "\x1b[2J",
        "٣",
    ]
)
TEXT = st.one_of(st.text(), st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=20).map("".join))


def sound(found: list[Lease]) -> None:
    for lease in found:
        assert type(lease.address) is type(lease.router) is IPv4Address
        assert not lease.router.is_unspecified
        assert lease.expires is None or isinstance(lease.expires, float)
        # The name of a device in it is only ever compared.
        line = leases.warning_of("u1", lease, "wan1", 1)
        assert line.isprintable()


@given(TEXT)
def test_any_text_is_leases_or_none(text: str) -> None:
    sound(leases.dhclient(text))
    sound(leases.key_values(text, "wan1", "NetworkManager"))


@given(st.binary(max_size=400), st.binary(max_size=200), st.floats(0, 1e12))
def test_any_message_is_a_lease_or_none(head: bytes, options: bytes, written: float) -> None:
    sound(leases.dhcpcd(head, "wan1", written))
    sound(leases.dhcpcd(head[:236].ljust(236, b"\0") + b"\x63\x82\x53\x63" + options, "wan1", written))
