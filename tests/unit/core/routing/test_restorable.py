"""Which settings `down` believes: root writes them, and the file that names them is another user's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.resolved import resolve
from polywan.core.routing.sysctls import build_sysctls, restorable, usual
from support.engine_world import config, world

DEVICE = "net/ipv4/conf/wan1/rp_filter"


def test_whatever_polywan_writes_can_be_restored() -> None:
    more: dict[str, Any] = {
        "policies": {"default": {"algorithm": "multipath", "tiers": [["u1", "u2", "u3"]]}},
        "global": {"forwarding": True},
    }
    configuration = config(3, **more)
    written = [*build_sysctls(resolve(configuration, {}), world(3), {}, {}), *usual(["wan1", "ppp0", "eth0.5@x"])]
    assert len(written) > 20
    assert [s for s in written if not restorable(s.path, s.value)] == []


@pytest.mark.parametrize(
    "path",
    [
        "kernel/hostname",
        "kernel/core_pattern",
        "kernel/modprobe",
        "vm/overcommit_memory",
        "net/core/bpf_jit_harden",
        "net/ipv4/ip_default_ttl",
        "net/ipv4/conf/all/rp_filter",
        "net/ipv4/conf/default/rp_filter",
        "net/ipv4/conf/lo/rp_filter",
        "net/ipv4/conf/../rp_filter",
        "net/ipv4/conf/wan1/../../../../kernel/hostname",
        "net/ipv4/conf/wan1/forwarding",
        "net/ipv4/conf/wan1/accept_ra",
        "net/ipv6/conf/wan1/rp_filter",
        "net/ipv6/conf/all/accept_ra",
        "net/ipv4/conf/wan1/rp_filter\n",
        "net/ipv4/conf/wan1/rp_filter/",
        "/net/ipv4/conf/wan1/rp_filter",
        "net//ipv4/conf/wan1/rp_filter",
        "net/ipv4/conf/a-name-that-is-too-long/rp_filter",
        "net/ipv4/conf/w an/rp_filter",
        "",
    ],
)
def test_no_other_setting_is_believed(path: str) -> None:
    assert not restorable(path, "1")


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_a_value_of_the_setting_is_believed(value: str) -> None:
    assert restorable(DEVICE, value)


@pytest.mark.parametrize(
    "value", ["", "3", "-1", "1\n", "1\n2", " 1", "on", "0x1", "1.0", "\u0661", "01234", "9" * 5000, "|/bin/sh"]
)
def test_no_other_value_is_believed(value: str) -> None:
    assert not restorable(DEVICE, value)


@given(st.text(), st.text())
def test_no_text_at_all_makes_it_fail(path: str, value: str) -> None:
    assert not restorable(path, value) or path.startswith("net/")
