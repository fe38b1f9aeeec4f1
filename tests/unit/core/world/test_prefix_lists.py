"""Files of prefixes: what is read, what is refused and in which words, and that joining changes no answer."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.world.lookups import PrefixList
from polywan.core.world.prefix_lists import MOST_FAULTS, MOST_PREFIXES, holds, parse


def good(text: str) -> PrefixList:
    parsed = parse(text)
    assert isinstance(parsed, PrefixList), parsed
    return parsed


def faults(text: str) -> list[str]:
    parsed = parse(text)
    assert not isinstance(parsed, PrefixList)
    return [str(fault) for fault in parsed]


def test_both_families_may_be_mixed() -> None:
    found = good("10.0.0.0/8\n2001:db8::/32\n192.0.2.1\n::1\n")
    assert (found.v4, found.v6) == (("10.0.0.0/8", "192.0.2.1"), ("::1", "2001:db8::/32"))


def test_comments_blank_lines_line_ends_and_a_byte_order_mark_count_for_nothing() -> None:
    text = "\ufeff10.0.0.0/8 # office\r\n\r\n; old\r\n  192.0.2.0/24 ; SBL1\r\n\t# only words\r\n"
    assert good(text).v4 == ("10.0.0.0/8", "192.0.2.0/24")


def test_an_empty_file_is_an_empty_list() -> None:
    assert good("") == good("# nothing\n")
    assert good("").v4 == good("").v6 == ()


def test_an_address_is_written_without_its_length() -> None:
    assert good("192.0.2.1/32\n2001:DB8:0::1/128").v4 == ("192.0.2.1",)


def test_what_lies_within_another_prefix_is_dropped_and_halves_are_joined() -> None:
    assert good("10.1.0.0/16\n10.0.0.0/8\n10.0.0.0/8").v4 == ("10.0.0.0/8",)
    assert good("10.0.0.0/26\n10.0.0.64/26\n10.0.0.128/25").v4 == ("10.0.0.0/24",)
    assert good("0.0.0.0/1\n128.0.0.0/1\n::/1\n8000::/1") == good("0.0.0.0/0\n::/0")


def test_the_digest_is_of_what_the_list_says_and_not_of_how_it_is_written() -> None:
    assert good("10.0.0.0/8\n192.0.2.1").digest == good("# new\n192.0.2.1/32\n10.0.0.0/9\n10.128.0.0/9\n").digest
    assert good("10.0.0.0/8").digest != good("10.0.0.0/9").digest


def test_host_bits_are_refused_with_the_prefix_that_may_be_meant() -> None:
    assert faults("# list\n10.1.2.3/8\n2001:db8::1/64") == [
        'line 2: "10.1.2.3/8" has host bits set (the network is 10.0.0.0/8)',
        'line 3: "2001:db8::1/64" has host bits set (the network is 2001:db8::/64)',
    ]


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.0/33", "::/129", "10.0.0", "10.0.0.256", "10.00.0.1", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/-1",
        "10.0.0.0/255.0.0.0", "fe80::1%eth0", "example.com", "1:2", "/8",
        "10.0.0.0/8/8", "\u0661.\u0661.\u0661.\u0661", "10.0.0.0/8 }",
    ],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(entry: str) -> None:
    (fault,) = faults(entry)
    assert fault.startswith("line 1: expected a prefix or an address")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0.256", "::/129", "10.0.0", "fe80:::1", "1.2.3.4/255.0.0.0"])
def test_what_was_meant_as_an_address_is_shown(entry: str) -> None:
    assert faults(entry) == [f'line 1: expected a prefix or an address, got "{entry}"']


@pytest.mark.parametrize(
    "line",
    [
        "root:$6$rounds=5000$salt$hash:19000:0:99999:7:::",
        "root:x:0:0:root:/root:/bin/sh",
        "dad:cafe",
        "deadbeefdeadbeefdeadbeefdeadbeef",
        "password = 10.0.0.1",
        "12345678",
        "hunter2/10.0.0.0",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "cafe:deadbeef:cafe",
        "1234567890.1234567890",
        "fe80::1%secret",
        "10.0.0.0/secret",
    ],
)
def test_of_a_line_that_may_be_a_secret_nothing_is_shown(line: str) -> None:
    (fault,) = faults(line)
    assert "got something else" in fault
    assert not any(
        word in fault for word in line.replace("/", " ").split() if word not in {"=", "10.0.0.1", "10.0.0.0"}
    )


@given(st.text(min_size=1, max_size=60))
def test_no_line_is_shown_unless_it_is_an_attempt_at_an_address(line: str) -> None:
    parsed = parse(line)
    if not isinstance(parsed, PrefixList):
        shown = [str(fault).split(", got ")[-1] for fault in parsed]
        assert all(
            text.startswith("something else") or set(text) <= set('"0123456789abcdefABCDEF:./') or "host bits" in text
            for text in shown
        )


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("10.0.0.0/8, 11.0.0.0/8", "write one on each line"),
        ("10.0.0.0/8 office", "write one on each line"),
        ("10.0.0.1-10.0.0.9", "write a range as"),
    ],
)
def test_common_slips_are_explained(entry: str, hint: str) -> None:
    assert hint in faults(entry)[0]


def test_every_fault_is_told_up_to_a_limit() -> None:
    assert len(faults("x\n10.0.0.0/8\ny\n")) == 2
    assert len(faults("<html>\n" * 1000)) == MOST_FAULTS


def test_control_characters_do_not_get_into_messages() -> None:
    assert faults("\x1b[2Jx")[0].isprintable()


def test_too_many_prefixes_are_one_fault() -> None:
    text = "\n".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(MOST_PREFIXES + 2))
    assert faults(text) == [f"line {MOST_PREFIXES + 1}: too many prefixes; a list may have {MOST_PREFIXES} prefixes"]


def networks(version: int) -> st.SearchStrategy[IPv4Network | IPv6Network]:
    bits = 32 if version == 4 else 128
    # Few leading bits, so that prefixes meet each other.
    lengths = st.integers(0, 6) | st.integers(bits - 3, bits) | st.integers(0, bits)

    def network(networks: tuple[int, int]) -> IPv4Network | IPv6Network:
        number, length = networks
        address = number >> bits - length << bits - length
        return IPv4Network((address, length)) if version == 4 else IPv6Network((address, length))

    numbers = st.integers(0, 15) | st.integers((1 << bits) - 16, (1 << bits) - 1) | st.integers(0, (1 << bits) - 1)
    return st.tuples(numbers, lengths).map(network)


@given(st.lists(networks(4) | networks(6), max_size=40))
def test_joining_gives_what_the_standard_library_gives(networks: list[IPv4Network | IPv6Network]) -> None:
    found = good("\n".join(map(str, networks)))
    v4 = [n for n in networks if isinstance(n, IPv4Network)]
    v6 = [n for n in networks if isinstance(n, IPv6Network)]
    assert list(map(ip_network, found.v4)) == list(collapse_addresses(v4))
    assert list(map(ip_network, found.v6)) == list(collapse_addresses(v6))


@given(st.lists(networks(4) | networks(6), min_size=1, max_size=20), st.data())
def test_the_same_addresses_are_in_the_list_before_and_after(
    networks: list[IPv4Network | IPv6Network], data: st.DataObject
) -> None:
    found = good("\n".join(map(str, networks)))
    near = data.draw(st.sampled_from(networks))
    numbers = [int(near.network_address) - 1, int(near.network_address), int(near.broadcast_address) + 1]
    top = (1 << near.max_prefixlen) - 1
    for number in [*numbers, data.draw(st.integers(0, top))]:
        address = ip_address(number.to_bytes(near.max_prefixlen // 8)) if 0 <= number <= top else near.network_address
        assert holds(found, address) == any(address in network for network in networks)


@given(st.text())
def test_no_text_makes_reading_fail(text: str) -> None:
    parse(text)


@given(st.text(st.sampled_from("0123456789abcdef.:/% \n#"), max_size=60))
def test_what_is_read_can_be_read_again(text: str) -> None:
    found = parse(text)
    if isinstance(found, PrefixList):
        assert good("\n".join((*found.v4, *found.v6))) == found
