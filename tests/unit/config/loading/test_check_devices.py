"""Uplinks that share a device: what the file has to say of each."""

from __future__ import annotations

import pytest

from polywan.config import ConfigError, load_text

TWO = """
[uplinks.fibre]
interface = "eth1"
{fibre}
[uplinks.dsl]
interface = "eth1"
{dsl}
"""


def found(fibre: str, dsl: str) -> list[tuple[str, str]]:
    try:
        load_text(TWO.format(fibre=fibre, dsl=dsl))
    except ConfigError as error:
        return [(problem.key, problem.message) for problem in error.problems]
    return []


def test_a_gateway_each_tells_them_apart() -> None:
    assert found('gateway = "192.168.1.1"', 'gateway = "192.168.1.254"') == []


def test_without_a_gateway_the_error_says_that_it_is_needed_and_whose_device_it_is() -> None:
    assert found('gateway = "192.168.1.1"', "") == [
        ("uplinks.dsl.gateway", 'is missing: "eth1" is the device of uplink "fibre", too')
    ]
    assert [key for key, _ in found("", "")] == ["uplinks.fibre.gateway", "uplinks.dsl.gateway"]


def test_a_gateway_of_ipv6_alone_is_no_reason_to_do_without_ipv4_unsaid() -> None:
    six = 'gateway6 = "fe80::1"\nprefix6 = "2001:db8:a::/56"'
    assert [key for key, _ in found('gateway = "192.168.1.1"', six)] == ["uplinks.dsl.gateway"]
    assert found('gateway = "192.168.1.1"', f'families = ["ipv6"]\n{six}') == []


def test_each_family_that_is_asked_for_needs_its_gateway() -> None:
    both = 'families = ["ipv4", "ipv6"]\n'
    assert [key for key, _ in found('gateway = "192.168.1.1"', f'{both}gateway = "192.168.1.2"')] == [
        "uplinks.dsl.gateway6"
    ]


def test_the_same_gateway_needs_different_sources() -> None:
    same = 'gateway = "192.168.1.1"'
    assert found(same, same) == [
        ("uplinks.dsl.gateway", '"192.168.1.1" by "eth1" is already the gateway of uplink "fibre"')
    ]
    assert found(f'{same}\nsource = "192.168.1.5"', same) != []
    assert found(f'{same}\nsource = "192.168.1.5"', f'{same}\nsource = "192.168.1.5"') != []
    assert found(f'{same}\nsource = "192.168.1.5"', f'{same}\nsource = "192.168.1.6"') == []


@pytest.mark.parametrize(
    ("key", "right"), [('prefix6 = "2001:db8:b::/56"', True), ('source = "2001:db8:b::5"', True), ("", False)]
)
def test_in_ipv6_the_file_says_whose_addresses_are_whose(key: str, right: bool) -> None:
    six = 'families = ["ipv6"]\n'
    one = f'{six}gateway6 = "fe80::1"\nprefix6 = "2001:db8:a::/56"'
    problems = found(one, f'{six}gateway6 = "fe80::2"\n{key}')
    assert [where for where, _ in problems] == ([] if right else ["uplinks.dsl.gateway6"])


def test_one_with_ipv6_alone_may_have_all_of_the_devices_addresses() -> None:
    assert found('gateway = "192.168.1.1"\ngateway6 = "fe80::1"', 'gateway = "192.168.1.2"') == []


def test_a_fault_of_another_key_is_told_beside() -> None:
    assert [key for key, _ in found("weight = 0", "")] == ["uplinks.fibre.weight"]


def test_a_source_is_no_router() -> None:
    assert found('gateway = "192.168.1.1"\nsource = "192.168.1.1"', 'gateway = "192.168.1.2"') == [
        ("uplinks.fibre.source", '"192.168.1.1" is the gateway of this uplink, too')
    ]


def test_the_kernel_cannot_choose_between_addresses_of_one_router() -> None:
    one, two = 'gateway = "192.168.1.1"\nsource = "192.168.1.5"', 'gateway = "192.168.1.1"\nsource = "192.168.1.6"'
    policy = '[policies.default]\nalgorithm = "multipath"\ntiers = [["fibre", "dsl"]]'
    assert found(one, f"{two}\n{policy}") == [
        (
            "policies.default.algorithm",
            'cannot tell "dsl" from "fibre": both leave by 192.168.1.1 on eth1',
        )
    ]
