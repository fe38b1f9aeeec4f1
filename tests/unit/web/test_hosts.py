"""Names under which the page may be asked for, in every form in which a header may have them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.web.hosts import Known, authority, host_name, known

NAMES = frozenset({"gw.example.org"})
HERE = ip_address("192.0.2.1")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("localhost", Known.LOOPBACK),
        ("localhost:8410", Known.LOOPBACK),
        ("LocalHost.:80", Known.LOOPBACK),
        ("127.0.0.1:8410", Known.LOOPBACK),
        ("[::1]", Known.LOOPBACK),
        ("[::1]:8410", Known.LOOPBACK),
        ("[0:0:0:0:0:0:0:1]:8410", Known.LOOPBACK),
        ("192.0.2.1", Known.ADDRESS),
        ("192.0.2.1:443", Known.ADDRESS),
        ("gw.example.org", Known.NAME),
        ("GW.Example.ORG:8410", Known.NAME),
        ("gw.example.org.", Known.NAME),
    ],
)
def test_our_names_are_known_in_any_writing(field: str, expected: Known) -> None:
    found = known([field], NAMES, HERE)
    assert found is not None
    assert found[1] is expected


@pytest.mark.parametrize(
    "field",
    [
        "",
        " ",
        "evil.example",
        "gw.example.org.evil.example",
        "evilgw.example.org",
        "gw.example.org..",
        "gw.example.org:",
        "gw.example.org:0",
        "gw.example.org:65536",
        "gw.example.org:8410:1",
        "gw.example.org:+80",
        "gw.example.org/",
        "user@gw.example.org",
        "gw.example.org, evil.example",
        "localhost.evil.example",
        "localhost#@evil.example",
        "192.0.2.2",
        "3221225985",
        "0x7f.0.0.1",
        "127.1",
        "127.0.0.01",
        "::1",
        "[::1",
        "[::2]",
        "[::ffff:192.0.2.1]",
        "[::1%25eth0]",
        "١٢٧.0.0.1",
    ],
)
def test_any_other_name_is_not_ours(field: str) -> None:
    assert known([field], NAMES, HERE) is None


@pytest.mark.parametrize("fields", [[], ["localhost", "localhost"], ["localhost", "evil.example"]])
def test_a_request_without_one_host_is_not_for_us(fields: list[str]) -> None:
    assert known(fields, NAMES, HERE) is None


@given(st.text(max_size=300))
def test_no_text_makes_a_reader_raise_and_what_is_read_is_read_again_as_the_same(text: str) -> None:
    found = authority(text)
    if found is not None and isinstance(found.host, str):
        assert host_name(found.host) == found.host
