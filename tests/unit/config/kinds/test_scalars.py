from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from polywan.config.kinds.addresses import AddressValue, Device, Network, Ports
from polywan.config.kinds.scalars import Duration, Flag, Kind, Mask, OneOf, Rate, Text, Whole, span

HUGE = pytest.param(1 << 20000, id="huge")  # more digits than Python prints


def refused(kind: Kind, raw: object) -> tuple[str, str]:
    with pytest.raises(PydanticCustomError) as caught:
        kind.parse(raw)
    context: dict[str, Any] = caught.value.context or {}
    return context["message"], context["hint"]


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("1s", 1.0),
        ("200ms", 0.2),
        ("10m", 600.0),
        ("10min", 600.0),
        ("1h", 3600.0),
        ("1.5 s", 1.5),
        (2, 2.0),
        (0.25, 0.25),
    ],
)
def test_a_duration_becomes_seconds(raw: object, seconds: float) -> None:
    assert Duration(0.05, 3600).parse(raw) == seconds


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "s",
        "1",
        "-1s",
        "1 parsec",
        "49ms",
        "61m",
        0.049,
        3601,
        float("nan"),
        float("inf"),
        HUGE,
        True,
        [],
        "\uff11s",
    ],
)
def test_what_is_no_duration_within_limits_is_refused(raw: object) -> None:
    message, _ = refused(Duration(0.05, 3600), raw)
    assert message.startswith('expected a duration from "50ms" to "1h", got ')


@pytest.mark.parametrize(
    ("raw", "bits"),
    [
        ("500Mbit", 500_000_000),
        ("1.5Gbit", 1_500_000_000),
        ("2000kbit", 2_000_000),
        ("2000bit", 2000),
        ("16mbit", 16_000_000),
        (64000, 64000),
        (1.5e6, 1_500_000),
    ],
)
def test_a_bandwidth_becomes_bits_per_second(raw: object, bits: int) -> None:
    assert Rate().parse(raw) == bits


def test_bytes_are_not_taken_for_bits() -> None:
    assert refused(Rate(), "500Mbps")[1] == 'the unit is bits, not bytes: did you mean "500Mbit"?'


def test_a_bare_small_number_is_told_to_be_bits_per_second() -> None:
    assert refused(Rate(), 500)[1] == "a plain number is bit/s"


@pytest.mark.parametrize("raw", ["fast", "", "1e9bit", "2Tbit", True, None, HUGE, float("nan")])
def test_what_is_no_bandwidth_is_refused(raw: object) -> None:
    assert refused(Rate(), raw)[0].startswith("expected a bandwidth")


@pytest.mark.parametrize(
    ("raw", "ranges"),
    [
        (443, ((443, 443),)),
        ("80,443", ((80, 80), (443, 443))),
        ("1000-2000", ((1000, 2000),)),
        ([80, "1000-2000"], ((80, 80), (1000, 2000))),
        (" 443 , 80 ", ((80, 80), (443, 443))),
        (["1-10", "5-20", 21], ((1, 21),)),
        (((80, 80), (443, 443)), ((80, 80), (443, 443))),
    ],
)
def test_ports_become_sorted_ranges_that_do_not_touch(raw: object, ranges: object) -> None:
    assert Ports().parse(raw) == ranges


@pytest.mark.parametrize(
    "raw", [0, 65536, "0", "http", "1-65536", "", [], [[80, 90]], True, 1.5, "80,,443", "99999999"]
)
def test_what_are_no_ports_is_refused(raw: object) -> None:
    assert refused(Ports(), raw)[0].startswith("expected ports from 1 to 65535")


def test_a_range_that_runs_backwards_is_turned_round_in_the_hint() -> None:
    assert refused(Ports(), "2000-1000")[1] == 'did you mean "1000-2000"?'


def test_an_address_is_a_prefix_of_one_host() -> None:
    assert Network().parse("192.0.2.7") == IPv4Network("192.0.2.7/32")
    assert Network().parse("2001:db8::/32") == IPv6Network("2001:db8::/32")


def test_host_bits_beyond_the_prefix_are_refused_with_the_right_prefix() -> None:
    assert refused(Network(), "192.168.15.1/24") == (
        '"192.168.15.1/24" has bits set beyond its prefix length',
        'did you mean "192.168.15.0/24"?',
    )


def test_a_netmask_is_refused_with_the_prefix_it_means() -> None:
    assert refused(Network(), "10.0.0.0/255.0.0.0")[1] == 'did you mean "10.0.0.0/8"?'


@pytest.mark.parametrize(
    "raw",
    ["example.org", "10.0.0.0/33", "fe80::%eth0/64", "fe80::%a b", "1.2.3", 7, "10.0.0.1/255.255.255.1"],
)
def test_what_is_no_prefix_is_refused(raw: object) -> None:
    assert refused(Network(), raw)[0].startswith("expected an address or prefix")


def test_an_address_keeps_to_its_family() -> None:
    assert AddressValue(4).parse("192.0.2.1") == IPv4Address("192.0.2.1")
    assert AddressValue(6).parse("fe80::1") == IPv6Address("fe80::1")
    assert refused(AddressValue(4), "fe80::1")[0] == 'expected an IPv4 address, got "fe80::1"'
    assert refused(AddressValue(4, ("auto",)), "fe80::1")[1] == "an IPv6 gateway belongs in gateway6"


@pytest.mark.parametrize("raw", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "127.0.0.1", "::1", "255.255.255.255"])
def test_an_address_of_no_single_host_is_refused(raw: str) -> None:
    assert refused(AddressValue(), raw)[0].startswith("expected the address of one host")


@pytest.mark.parametrize(
    "raw", [1, True, "1.2.3.4/32", "::ffff:1.2.3.4", "fe80::1%eth0", "fe80::1%;x", "dns.google", ""]
)
def test_what_is_no_address_is_refused(raw: object) -> None:
    assert refused(AddressValue(), raw)[0].startswith("expected an IP address")


@pytest.mark.parametrize("name", ["eth0", "enp3s0.100", "br-lan", "wg_0", "a@b", "p+", "123456789012345"])
def test_device_names_of_the_kernel_pass(name: str) -> None:
    assert Device().parse(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1234567890123456",
        "a b",
        "a/b",
        'a"b',
        "a\\b",
        "a{b",
        "a;b",
        "eth0\n",
        "-x",
        "é",
        "eth0:1",
        ".",
        "..",
        "all",
        "default",
        5,
    ],
)
def test_names_that_could_mean_something_else_are_refused(name: object) -> None:
    refused(Device(), name)


def test_loopback_is_no_uplink_but_may_be_named_in_a_rule() -> None:
    assert Device().parse("lo") == "lo"
    refused(Device(loopback=False), "lo")


def test_a_word_close_to_a_choice_is_suggested() -> None:
    assert refused(OneOf(("bypass", "block")), "bypas") == (
        'expected "bypass" or "block", got "bypas"',
        'did you mean "bypass"?',
    )


def test_numbers_in_quotes_are_told_to_lose_them() -> None:
    assert refused(Whole(1, 1000), "3") == (
        'expected a whole number from 1 to 1000, got "3"',
        "write it without quotes",
    )


@pytest.mark.parametrize("raw", [0, 1001, True, 3.0, "x", None, [], {}, HUGE])
def test_what_is_no_whole_number_within_limits_is_refused(raw: object) -> None:
    refused(Whole(1, 1000), raw)


@pytest.mark.parametrize("raw", ["yes", 1, 0, "true", None])
def test_only_true_and_false_are_flags(raw: object) -> None:
    refused(Flag(), raw)


@pytest.mark.parametrize("raw", [0, 3, 0x1_0000_0000, -1, True, "0x3f00", HUGE])
def test_a_mask_has_three_bits_within_32(raw: object) -> None:
    refused(Mask(), raw)


def test_scattered_bits_are_a_mask() -> None:
    assert Mask().parse(0xAA) == 0xAA


def test_text_must_match_to_its_very_end() -> None:
    refused(Text("[a-z]+", "letters"), "abc\n")


def test_durations_are_written_in_their_largest_whole_unit() -> None:
    assert [span(s) for s in (0.05, 0, 1.5, 60, 90, 3600, 86400)] == [
        "50ms",
        "0s",
        "1.5s",
        "1m",
        "90s",
        "1h",
        "1d",
    ]


def test_a_switch_that_only_turns_off_says_so_and_advises_nothing_else() -> None:
    only_off = Flag(("auto",), (False,))
    assert (only_off.parse(False), only_off.parse("auto")) == (False, "auto")
    assert refused(only_off, True) == ('expected false or "auto", got true', "")
    assert refused(only_off, "true")[1] == ""
    assert refused(only_off, "false")[1] == "write it without quotes"
