"""Ranges of addresses in `from` and `to`: the prefixes that make them up."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.config import Config, ConfigError, load_text


def rule(value: str) -> str:
    return f'[uplinks.a]\ninterface = "wan1"\n[[rules]]\nuplink = "a"\nfrom = {value}\n'


def sources(value: str) -> list[str]:
    return [str(n) for n in load_text(rule(value)).rules[0].from_]


@pytest.mark.parametrize(
    ("value", "prefixes"),
    [
        ('"192.168.1.10-192.168.1.13"', ["192.168.1.10/31", "192.168.1.12/31"]),
        ('"192.168.1.0 - 192.168.1.255"', ["192.168.1.0/24"]),
        ('"192.168.1.7-192.168.1.7"', ["192.168.1.7/32"]),
        ('["2001:db8::1-2001:db8::2", "10.0.0.0/8"]', ["2001:db8::1/128", "2001:db8::2/128", "10.0.0.0/8"]),
        ('["10.0.0.0-10.0.0.3", "10.0.0.0/8"]', ["10.0.0.0/8"]),
        ('"0.0.0.0-255.255.255.255"', ["0.0.0.0/0"]),
    ],
)
def test_a_range_stands_for_its_prefixes(value: str, prefixes: list[str]) -> None:
    assert sources(value) == prefixes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"10.0.0.9-10.0.0.1"', 'did you mean "10.0.0.1-10.0.0.9"?'),
        ('"192.168.1.10-20"', 'did you mean "192.168.1.10-192.168.1.20"?'),
        ('"10.0.0.1-2001:db8::1"', "mixes address families"),
        ('"10.0.0.1-10.0.0.999"', "expected an address or prefix"),
        ('"10.0.0.1-"', "expected an address or prefix"),
    ],
)
def test_what_is_no_range_is_told_with_what_was_meant(value: str, text: str) -> None:
    with pytest.raises(ConfigError, match="rule 1: from") as caught:
        load_text(rule(value))
    assert text in str(caught.value)


def test_only_rules_take_ranges() -> None:
    with pytest.raises(ConfigError):
        load_text('[uplinks.a]\ninterface = "wan1"\n[uplinks.a.health]\ntargets = ["192.0.2.1-192.0.2.3"]\n')


addresses = st.integers(0, 2**32 - 1)


@given(addresses, addresses, addresses)
def test_a_range_holds_its_ends_and_what_lies_between_and_nothing_else(one: int, other: int, asked: int) -> None:
    low, high = sorted((one, other))
    text = rule(f'"{ip_address(low)}-{ip_address(high)}"')
    config = load_text(text)
    networks = config.rules[0].from_
    assert Config.model_validate(config.model_dump(by_alias=True)) == config
    for address in (asked, low, high, max(low - 1, 0), min(high + 1, 2**32 - 1)):
        assert any(IPv4Address(address) in n for n in networks) is (low <= address <= high)
