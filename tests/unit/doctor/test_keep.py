"""Settings have names with dots and paths with slashes, whatever a device is called."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polywan.api.doctor import Step
from polywan.doctor.checks.keep import SETTINGS_FILE, name_of, set_and_keep


def test_a_dot_in_the_name_of_a_device_is_a_slash() -> None:
    assert name_of("net/ipv4/conf/eth0.100/rp_filter") == "net.ipv4.conf.eth0/100.rp_filter"


@given(st.text())
def test_the_name_of_a_name_is_the_path(path: str) -> None:
    assert name_of(name_of(path)) == path


def test_a_setting_is_made_now_and_for_the_next_start() -> None:
    name = "net.ipv4.conf.eth0/100.arp_ignore"

    assert set_and_keep({"net/ipv4/conf/eth0.100/arp_ignore": "1"}) == (
        Step(command=("sysctl", "-q", "-w", f"{name}=1")),
        Step(path=SETTINGS_FILE, text=f"{name} = 1\n", append=True),
    )
