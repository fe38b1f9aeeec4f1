"""Which line of sysctl.d(5) decides, and what a box loses by it at its next start."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.net import TABLE_MAIN, Family
from polywan.core.plan.lans import Lan
from polywan.core.world.observed import DefaultRoute, Observed
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import SETTINGS_FILE
from polywan.doctor.checks.machine import sysctl_undone
from polywan.doctor.facts.boot_settings import SettingsFile, decisive
from polywan.doctor.facts.egress import Egress
from polywan.doctor.facts.machine import MachineFacts
from polywan.doctor.reading.machine import boot_settings
from support.engine_world import config, world

WAN2 = "net/ipv4/conf/wan2/rp_filter"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("net.ipv4.conf.wan2.rp_filter = 1", "1"),
        ("net/ipv4/conf/wan2/rp_filter=1", "1"),
        ("-net.ipv4.conf.wan2.rp_filter = 1", "1"),
        ("# net.ipv4.conf.wan2.rp_filter = 1\n; net.ipv4.conf.wan2.rp_filter = 1", None),
        ("net.ipv4.conf.*.rp_filter = 2", "2"),
        ("net.ipv4.conf.wan2.rp_filter = 1\nnet.ipv4.conf.*.rp_filter = 2", "1"),
        ("net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.wan2.rp_filter", None),
        ("net.ipv4.conf.wan2.rp_filter = 1\nnet.ipv4.conf.wan2.rp_filter = 2", "2"),
        ("net.ipv4.conf.wan1.rp_filter = 1", None),
        ("net.*.rp_filter = 1", None),
        ("rubbish\n=\n=1\n-\n", None),
    ],
)
def test_the_line_that_decides(text: str, value: str | None) -> None:
    line = decisive([SettingsFile("/etc/sysctl.d/10.conf", text)], WAN2)
    assert (line.value if line is not None else None) == value


def test_a_device_with_a_dot_is_written_with_a_slash() -> None:
    file = SettingsFile("/etc/sysctl.d/10.conf", "net.ipv4.conf.eth0/100.rp_filter = 1")
    line = decisive([file], "net/ipv4/conf/eth0.100/rp_filter")
    assert line is not None
    assert line.value == "1"


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_files_are_read_in_the_order_of_their_names_and_those_of_etc_hide_the_packages(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/sysctl.d/50-default.conf", "packaged")
    write(tmp_path, "usr/lib/sysctl.d/10-hidden.conf", "hidden")
    write(tmp_path, "etc/sysctl.d/10-hidden.conf", "own")
    write(tmp_path, "run/sysctl.d/60-run.conf", "run")
    write(tmp_path, "etc/sysctl.d/README", "not a setting")
    write(tmp_path, "usr/lib/sysctl.d/70-masked.conf", "masked")
    (tmp_path / "etc/sysctl.d/70-masked.conf").symlink_to("/dev/null")
    write(tmp_path, "etc/sysctl.conf", "last")

    with_systemd = [file.text for file in boot_settings(tmp_path, systemd=True)]
    without = [file.text for file in boot_settings(tmp_path, systemd=False)]

    assert with_systemd == ["own", "packaged", "run", ""]
    assert without == [*with_systemd, "last"]


@pytest.mark.parametrize(("word", "applied"), [("yes", True), ("no", False)])
def test_what_ufw_applies_comes_last_where_it_is_on(tmp_path: Path, word: str, *, applied: bool) -> None:
    write(tmp_path, "etc/ufw/ufw.conf", f"# ENABLED=yes\nENABLED={word}\n")
    write(tmp_path, "etc/ufw/sysctl.conf", "net/ipv4/conf/all/rp_filter=1\n")
    write(tmp_path, "etc/sysctl.d/99-own.conf", "net.ipv4.conf.all.rp_filter = 2\n")

    line = decisive(boot_settings(tmp_path, systemd=True), "net/ipv4/conf/all/rp_filter")

    assert line is not None
    assert (line.value, line.file.path) == (
        ("1", "/etc/ufw/sysctl.conf") if applied else ("2", "/etc/sysctl.d/99-own.conf")
    )


KEYS = st.sampled_from(["net.ipv4.ip_forward", "net.ipv4.conf.wan2.rp_filter", "net/ipv4/conf/wan2/rp_filter"])


@given(st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=8), st.integers(0, 8))
def test_of_lines_that_name_a_setting_the_last_counts_however_they_are_spread_over_files(
    lines: list[tuple[str, int]], cut: int
) -> None:
    texts = [f"{key} = {value}\n" for key, value in lines]
    files = [SettingsFile("/a", "".join(texts[:cut])), SettingsFile("/b", "".join(texts[cut:]))]
    last = {key.replace(".", "/"): str(value) for key, value in lines}

    line = decisive(files, WAN2)

    assert (line.value if line is not None else None) == last.get(WAN2)


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    decisive([SettingsFile("/etc/sysctl.d/odd.conf", text)], WAN2)


LAN = Lan("lan0", ip_interface("10.0.0.1/24").network, ip_interface("10.0.0.1/24"))
HAND_MADE = (Egress("wan1", "wan1", Family.V4, TABLE_MAIN), Egress("wan2", "wan2", Family.V4, 202, mark=2))


def box_of(text: str, path: str = "/etc/sysctl.d/60-hardening.conf", **fields: Any) -> Box:
    settings = {
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
        **{f"net/ipv4/conf/{name}/rp_filter": "2" for name in ("all", "wan1", "wan2")},
        **{f"net/ipv4/conf/{name}/src_valid_mark": "0" for name in ("all", "wan1", "wan2")},
        **fields.pop("settings", {}),
    }
    observed = Observed(links=world(2).links, defaults=(DefaultRoute(family=Family.V4, link="wan1", via=None),))
    inputs = {"egresses": HAND_MADE, "lans": (LAN,), "observed": observed, "settings": settings, **fields}
    return Box(machine=MachineFacts(boot=(SettingsFile(path, text),)), **inputs)


def whats(box: Box) -> list[str]:
    return [finding.what for finding in sysctl_undone.check(box)]


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.default.rp_filter = 1\n",
        "net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.wan2.rp_filter = 0\n",
        "net.ipv4.conf.*.rp_filter = 1\n-net.ipv4.conf.all.rp_filter\nnet.ipv4.conf.all.rp_filter = 0\n",
        "net.ipv4.conf.all.rp_filter = 0\nnet.ipv4.conf.wan2.rp_filter = 1\n",
    ],
)
def test_strict_filtering_at_the_next_start_is_found_on_a_hand_made_box(text: str) -> None:
    (finding,) = sysctl_undone.check(box_of(text))

    assert finding.severity == "warning"
    assert "rp_filter = 1 at the next start" in finding.what
    assert "wan2" in finding.consequence
    assert "wan1" not in finding.consequence
    assert finding.fix is not None
    assert [step.path for step in finding.fix.steps] == [SETTINGS_FILE]


@pytest.mark.parametrize(
    "text",
    [
        "net.ipv4.conf.all.rp_filter = 2\nnet.ipv4.conf.default.rp_filter = 1\n",
        "net.ipv4.conf.default.rp_filter = 2\nnet.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\n",
        "net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.*.rp_filter = 2\n",
        "net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.all.src_valid_mark = 1\n",
        "net.ipv4.conf.wan1.rp_filter = 1\nnet.ipv4.conf.all.rp_filter = 0\n",
        "net.ipv4.ip_forward = 1\nkernel.sysrq = 0\n",
        "net.ipv4.conf.all.forwarding = 0\n",
        "",
    ],
)
def test_what_distributions_ship_and_what_only_looks_strict_is_no_finding(text: str) -> None:
    assert whats(box_of(text)) == []


def test_strict_filtering_does_no_harm_where_main_leads_by_the_only_link() -> None:
    assert whats(box_of("net.ipv4.conf.all.rp_filter = 1", egresses=HAND_MADE[:1])) == []


def test_what_is_wrong_already_is_left_to_other_checks() -> None:
    strict = {f"net/ipv4/conf/{name}/rp_filter": "1" for name in ("all", "wan2")}
    assert whats(box_of("net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.ip_forward = 0", settings=strict)) != []
    off = {**strict, "net/ipv4/ip_forward": "0"}
    assert whats(box_of("net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.ip_forward = 0", settings=off)) == []


def test_a_script_that_writes_the_setting_has_the_last_word() -> None:
    box = box_of("net.ipv4.conf.*.rp_filter = 1\nnet.ipv4.ip_forward = 0\n")
    again = replace(box, scripts={"/etc/network/if-up.d/wan": "echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter\n"})

    assert len(whats(box)) == 2
    (remaining,) = whats(again)
    assert "ip_forward" in remaining


def test_forwarding_that_ends_with_the_next_start_is_found() -> None:
    (finding,) = sysctl_undone.check(box_of("net.ipv4.ip_forward=0\n"))

    assert "10.0.0.0/24" in finding.consequence
    assert finding.evidence == (
        "/etc/sysctl.d/60-hardening.conf:1: net.ipv4.ip_forward = 0",
        "net.ipv4.ip_forward = 1 now",
    )


def test_forwarding_is_not_missed_where_nothing_is_behind_the_box() -> None:
    assert whats(box_of("net.ipv4.ip_forward=0\n", lans=())) == []


@pytest.mark.parametrize("path", ["/etc/sysctl.d/99-sysctl.conf", "/etc/sysctl.conf", SETTINGS_FILE])
def test_a_file_that_is_read_later_than_ours_has_to_be_corrected_itself(path: str) -> None:
    (finding,) = sysctl_undone.check(box_of("\nnet.ipv4.ip_forward=0\n", path))

    assert finding.fix is not None
    assert (finding.fix.steps, finding.fix.how) == ((), f"remove or correct line 2 of {path}")


def test_advertisements_that_will_be_ignored_are_found_where_the_default_comes_by_them() -> None:
    default = DefaultRoute(family=Family.V6, link="wan1", via=None, advertised=True)
    text = "net.ipv6.conf.wan1.accept_ra = 0\n"
    box = box_of(text, settings={"net/ipv6/conf/wan1/accept_ra": "2"})

    assert whats(box) == []
    (what,) = whats(replace(box, observed=replace(box.observed, defaults=(default,))))
    assert "accept_ra = 0" in what


def test_events_that_will_be_off_matter_to_a_box_with_a_file() -> None:
    box = box_of("net.netfilter.nf_conntrack_events = 0\n", settings={"net/netfilter/nf_conntrack_events": "2"})

    assert whats(box) == []
    (what,) = whats(replace(box, config=config(1)))
    assert "nf_conntrack_events = 0" in what
