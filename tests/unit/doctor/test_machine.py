"""The rest of a box: each fault is named, and what only looks like it is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from polywan.api.doctor import Finding
from polywan.config import Config
from polywan.core.plan.cautions import TRACKING_COUNT, TRACKING_LIMIT
from polywan.doctor.box import Box, OwnWarnings
from polywan.doctor.checks.keep import SETTINGS_FILE
from polywan.doctor.checks.machine import MACHINE
from polywan.doctor.facts.machine import Clock, MachineFacts, Process, Unit, config_of
from polywan.doctor.reading.machine import tracking
from support.engine_world import config, world

BUCKETS = "net/netfilter/nf_conntrack_buckets"
FILE = "/etc/polywan/polywan.toml"
NOW = datetime(2027, 3, 1, tzinfo=UTC).timestamp()
ENABLED = Unit("/usr/lib/systemd/system/polywan.service", enabled=True, masked=False)
SERVICE = Process(7, ("python3", "/usr/bin/polywan", "run"), "/system.slice/polywan.service")


def box_of(machine: Mapping[str, Any] | None = None, **fields: Any) -> Box:
    return Box(machine=MachineFacts(**(machine or {})), config_path=FILE, now=NOW, **fields)


def found(box: Box, name: str) -> list[Finding]:
    (check,) = (check for check in MACHINE if check.name == name)
    return list(check.look(box))


def only(box: Box, name: str) -> Finding:
    (finding,) = found(box, name)
    return finding


def tracked(count: int, most: int, buckets: int = 0, **machine: Any) -> Box:
    settings = {TRACKING_COUNT: str(count), TRACKING_LIMIT: str(most), BUCKETS: str(buckets or most)}
    return box_of(machine, settings=settings)


@pytest.mark.parametrize(
    ("count", "severity"), [(89, None), (90, "warning"), (99, "warning"), (100, "fault"), (101, "fault")]
)
def test_a_full_tracking_table_is_a_fault_and_a_nearly_full_one_a_warning(count: int, severity: str | None) -> None:
    assert [f.severity for f in found(tracked(count, 100), "conntrack-full")] == ([severity] if severity else [])


def test_a_table_that_was_full_is_a_note_with_the_counter_that_shows_it() -> None:
    finding = only(tracked(10, 100, tracking={"early_drop": 3, "drop": 2, "insert_failed": 0}), "conntrack-full")

    assert finding.severity == "note"
    assert "drop = 2, early_drop = 3" in finding.evidence[1]
    assert "insert_failed" not in finding.evidence[1]


def test_counters_of_tracking_are_sums_over_processors_of_hexadecimal_numbers() -> None:
    text = "entries  found early_drop\n0000000a 00000001 0000000f\n0000000a 00000000 00000001\n"

    assert tracking(text) == {"found": 1, "early_drop": 16}
    assert tracking("") == {}


@pytest.mark.parametrize("box", [tracked(10, 0), box_of(), tracked(10, 100, tracking={"drop": 5, "insert_failed": 2})])
def test_a_table_without_limit_or_with_drops_of_another_cause_is_not_full(box: Box) -> None:
    assert found(box, "conntrack-full") == []


@pytest.mark.parametrize(
    ("name", "box"), [("conntrack-full", tracked(9, 9)), ("conntrack-buckets", tracked(90, 90, 9))]
)
def test_the_size_of_the_table_is_set_from_here_only_where_it_can_be(name: str, box: Box) -> None:
    steps = [step for finding in found(box, name) if finding.fix for step in finding.fix.steps]
    assert steps[0].command[:3] == ("sysctl", "-q", "-w")
    assert {step.path for step in steps[1:]} == {SETTINGS_FILE, "/etc/modules-load.d/90-uplinks.conf"}

    fixed = replace(box, machine=replace(box.machine, tracking_fixed=True))
    fix = only(fixed, name).fix
    assert fix is not None
    assert fix.steps == ()
    assert "the host" in fix.how


@pytest.mark.parametrize(
    ("count", "most", "buckets", "severity"),
    [
        (16_000, 65_536, 65_536, None),
        (65_536, 65_536, 65_536, None),  # full, by the default of new kernels
        (65_536, 65_536, 16_384, None),  # full, by the default of old ones
        (80_000, 1_048_576, 16_384, "warning"),
        (10, 1_048_576, 16_384, "note"),
    ],
)
def test_chains_are_long_only_beyond_every_default(count: int, most: int, buckets: int, severity: str | None) -> None:
    findings = found(tracked(count, most, buckets), "conntrack-buckets")
    assert [finding.severity for finding in findings] == ([severity] if severity else [])


def test_the_length_of_chains_is_told_as_measured() -> None:
    evidence = only(tracked(80_000, 1_048_576, 16_384, tracking={"chainlength": 4}), "conntrack-buckets").evidence

    assert evidence[2] == "a chain has 9.8 entries now, and 128.0 when the table is full"
    assert evidence[3].startswith("4 new connections were refused")


def test_a_file_with_mistakes_is_a_fault_with_all_of_them() -> None:
    finding = only(box_of(config_faults=("a", "b")), "config-faults")

    assert (finding.severity, finding.evidence) == ("fault", ("a", "b"))


def test_own_warnings_have_their_advice_as_fix() -> None:
    said = ("uplink u1: it has no router; set its gateway", "all uplinks failed at once; keeping the last choice")
    first, second = found(box_of(warnings=OwnWarnings(said[:1], said[1:])), "polywan-warnings")

    assert first.fix is not None
    assert (first.what, first.fix.how) == ("uplink u1: it has no router", "set its gateway")
    assert (second.what, second.fix) == (said[1], None)


@pytest.mark.parametrize(
    ("now", "confirmed", "wrong"),
    [
        (0.0, 0.0, False),  # not read
        (86_400.0, 0.0, True),
        (datetime(2024, 12, 31, tzinfo=UTC).timestamp(), 0.0, True),
        (NOW, 0.0, False),
        (NOW, NOW + 3600, False),
        (NOW, NOW + 90_000, True),
    ],
)
def test_a_clock_is_wrong_that_shows_a_time_that_is_over(now: float, confirmed: float, *, wrong: bool) -> None:
    box = replace(box_of({"clock": Clock(synchronised=False, confirmed=confirmed)}), now=now)
    assert bool(found(box, "clock-unset")) is wrong


def test_a_clock_without_a_time_service_that_is_right_is_no_finding() -> None:
    assert found(box_of({"clock": Clock(synchronised=False)}), "clock-unset") == []


def timed() -> Config:
    rule = {"uplink": "u1", "time": "mon-fri 08:00-18:00"}
    return Config.model_validate({"uplinks": {"u1": {"interface": "wan1"}}, "rules": [rule]})


def zones(local: str, named: str = "", zone: str | None = None) -> dict[str, Any]:
    return {"clock": Clock(local=local, named=named), "daemon": SERVICE._replace(zone=zone)}


@pytest.mark.parametrize(
    ("machine", "severity"),
    [
        (zones("Europe/Berlin", "Europe/Berlin"), None),
        (zones("Europe/Berlin"), None),
        (zones("Europe/Berlin", "Europe/Berlin", ":Europe/Berlin"), None),
        (zones("Etc/UTC", "Europe/Berlin"), "warning"),
        (zones("Europe/Berlin", "Europe/Berlin", "UTC"), "warning"),
        (zones("Etc/UTC", "UTC"), "note"),
        (zones(""), None),
    ],
)
def test_zones_that_differ_matter_to_rules_with_time(machine: dict[str, Any], severity: str | None) -> None:
    assert [f.severity for f in found(box_of(machine, config=timed()), "time-zone")] == ([severity] if severity else [])
    assert found(box_of(machine, config=config(1)), "time-zone") == []
    assert found(box_of(machine), "time-zone") == []


def test_what_the_kernel_lacks_is_a_fault_and_an_update_without_a_restart_is_named() -> None:
    lacking = ("nftables numgen (kernel option CONFIG_NFT_NUMGEN): no such file",)
    plain = only(box_of(lacking=lacking), "missing-feature")
    updated = only(box_of({"release": "6.1.0-9", "modules": False}, lacking=lacking), "missing-feature")

    assert plain.severity == "fault"
    assert "CONFIG_NFT_NUMGEN" in plain.evidence[0]
    assert updated.fix is not None
    assert updated.fix.how.startswith("reboot")


def test_pppd_is_missed_only_where_an_uplink_waits_for_it() -> None:
    def lacks(device: str) -> list[str]:
        dialled = Config.model_validate({"uplinks": {"u1": {"interface": device}}})
        box = box_of({"absent": frozenset(["pppd"])}, config=dialled, observed=world(1))
        return [finding.severity for finding in found(box, "missing-feature")]

    assert lacks("ppp0") == ["fault"]
    assert lacks("wan1") == []
    assert found(box_of({"absent": frozenset(["pppd"])}), "missing-feature") == []


def test_tools_that_help_are_a_note_on_a_box_that_polywan_runs_on() -> None:
    absent = {"absent": frozenset(["conntrack", "nft"])}
    finding = only(box_of(absent, config=config(1)), "missing-feature")

    assert finding.severity == "note"
    assert finding.fix is not None
    assert finding.fix.how.endswith("apt install nftables conntrack")
    assert found(box_of(absent), "missing-feature") == []


def booting(**fields: Any) -> list[str]:
    configured = fields.pop("config", config(1))
    return [finding.what for finding in found(box_of(fields, config=configured), "not-at-boot")]


def test_a_daemon_that_its_unit_runs_is_in_order() -> None:
    assert booting(systemd=True, unit=ENABLED, daemon=SERVICE) == []


def test_a_daemon_in_a_box_without_systemd_is_in_order() -> None:
    assert booting(daemon=SERVICE._replace(group="/")) == []


def test_a_box_without_a_file_needs_no_daemon() -> None:
    assert booting(systemd=True, unit=ENABLED._replace(enabled=False), config=None) == []


def test_a_unit_of_another_name_may_run_it() -> None:
    assert booting(systemd=True, daemon=SERVICE._replace(group="/system.slice/wan.service")) == []


@pytest.mark.parametrize("masked", [False, True])
def test_a_unit_that_nothing_wants_is_found_and_enabled(*, masked: bool) -> None:
    unit = ENABLED._replace(enabled=False, masked=masked)
    finding = only(box_of({"systemd": True, "unit": unit, "daemon": SERVICE}, config=config(1)), "not-at-boot")

    assert ("masked" in finding.what) is masked
    assert finding.fix is not None
    assert finding.fix.steps[-1].command == ("systemctl", "enable", "polywan")


def test_a_daemon_of_a_login_session_is_found() -> None:
    by_hand = SERVICE._replace(group="/user.slice/user-0.slice/session-1.scope")

    (what,) = booting(systemd=True, unit=ENABLED, daemon=by_hand)

    assert "by hand" in what


def test_a_file_without_a_daemon_is_found_and_the_daemon_of_another_namespace_named() -> None:
    box = box_of({"systemd": True, "unit": ENABLED, "elsewhere": (42,)}, config=config(1))
    finding = only(box, "not-at-boot")

    assert "no daemon of polywan runs" in finding.what
    assert finding.evidence[1] == "process 42 runs polywan in another network namespace"
    assert finding.fix is not None
    assert finding.fix.steps[0].command == ("systemctl", "start", "polywan")


def test_a_daemon_is_not_started_with_a_bad_file() -> None:
    finding = only(box_of({"systemd": True, "unit": ENABLED}, config_faults=("bad",)), "not-at-boot")

    assert finding.fix is not None
    assert finding.fix.steps == ()


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (("run",), FILE),
        (("run", "--config", "/srv/wan.toml"), "/srv/wan.toml"),
        (("run", "-c", "wan.toml", "--verbose"), "wan.toml"),
        (("run", "--config=/srv/wan.toml"), "/srv/wan.toml"),
        (("-c", "from multiprocessing"), None),
        ((), None),
    ],
)
def test_a_daemons_file_is_among_its_arguments(words: tuple[str, ...], file: str | None) -> None:
    assert config_of(("python3", "/usr/bin/polywan", *words)) == file


@pytest.mark.parametrize(("used", "other"), [(None, False), (FILE, False), ("/srv/wan.toml", True)])
def test_a_daemon_with_another_file_is_found(used: str | None, *, other: bool) -> None:
    machine = {"daemon": SERVICE._replace(config=used), "config": FILE}
    findings = found(box_of(machine, config=config(1)), "two-configurations")
    assert [finding.what for finding in findings] == [f"the daemon uses {used}, not {FILE}"] * other
    # Where the usual file is not there, the other one is all there is.
    assert found(box_of(machine), "two-configurations") == []


def shown(configuration: Config) -> Any:
    return json.loads(configuration.model_dump_json(by_alias=True))


def test_a_file_that_was_changed_is_found_with_what_is_different() -> None:
    box = box_of({"daemon": SERVICE}, config=config(2), in_force=shown(config(1)))
    finding = only(box, "two-configurations")

    assert finding.evidence == ("uplinks.u2: only in the file",)
    assert finding.fix is not None
    assert finding.fix.steps[0].command == ("polywan", "reload")
    assert found(replace(box, in_force=shown(config(2))), "two-configurations") == []


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("lte.conf", "[uplinks.lte]\ninterface = 'wwan0'\n", True),
        ("lte", "[[rules]]\nuplink = 'lte'\n", True),
        ("lte.toml.dpkg-new", "[uplinks.lte]\n", False),
        ("lte.toml.dpkg-dist", "[uplinks.lte]\n", False),
        ("lte.toml.bak", "[uplinks.lte]\n", False),
        ("lte.toml~", "[uplinks.lte]\n", False),
        ("lte.disabled", "[uplinks.lte]\n", False),
        ("README", "files that end in .toml are read\n", False),
    ],
)
def test_a_file_that_is_meant_and_not_read_is_found(name: str, text: str, *, read: bool) -> None:
    box = box_of({"unread_files": {f"/etc/polywan/conf.d/{name}": text}})
    assert bool(found(box, "two-configurations")) is read
