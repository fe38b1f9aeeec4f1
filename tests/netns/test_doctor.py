"""Doctor beside a running daemon, without privileges, and on boxes with many links."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.nft import filter_rules
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from support.doctor import doctor, only, printed

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor


def test_a_box_that_polywan_balances_has_no_finding(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    wait_for(lambda: all(uplink.state == "up" for uplink in daemon.status().uplinks), 10.0, "all uplinks serve")

    found = doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=daemon.config, state=daemon.state)

    assert found.findings == ()
    assert found.not_checked == ()


def test_a_cable_that_is_pulled_is_named_with_the_daemons_reason(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    lab.cut(2)
    wait_for(lambda: daemon.uplink(2).state == "down", 5.0, "the loss is noticed")

    found = doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=daemon.config, state=daemon.state)

    finding = only(found, "uplink-down")
    assert (finding.severity, "isp2 (wan2) is down: no carrier" in finding.what) == ("fault", True)


def test_nothing_but_findings_reaches_the_terminal(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))

    done = printed(lab.router, "--config", str(daemon.config), "--state-dir", str(daemon.state))

    assert done.stderr == ""


def test_after_init_only_the_start_of_the_daemon_is_missing(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "polywan.toml"
    lab.router.sysctl({"ipv4/ip_forward": 0, "ipv6/conf/all/forwarding": 0})
    lab.router.run(
        [sys.executable, "-m", "polywan", "init", "--yes", "--config", str(file), "--state-dir", str(tmp_path)]
    )

    assert {finding.check for finding in doctor(lab.router, config=file).findings} == {"not-at-boot"}


def test_nothing_is_changed_by_looking(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    shown = ("ip rule", "ip -6 rule", "ip route show table all", "nft -s list ruleset")
    before = [lab.router.run(words.split()).stdout for words in shown]

    doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=daemon.config, state=daemon.state)

    assert [lab.router.run(words.split()).stdout for words in shown] == before


def changes(place: Namespace) -> int:
    """Return the number of transactions that the packet filter has seen."""
    with place.entered(), netfilter() as netlink:
        return filter_rules._generation(netlink)


def test_nothing_is_written_into_the_packet_filter_beside_a_daemon(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    wait_for(lambda: all(uplink.state == "up" for uplink in daemon.status().uplinks), 10.0, "all uplinks serve")
    before = changes(lab.router)

    doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=daemon.config, state=daemon.state)

    assert changes(lab.router) == before


@pytest.mark.needs("root")
def test_an_ordinary_user_is_told_what_was_not_checked(lab: Lab) -> None:
    argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-m", "polywan"]
    done = lab.router.run([*argv, "doctor", "--json", "--config", "/nonexistent"], check=False)

    found = json.loads(done.stdout)
    assert "forward-drop" in [each["check"] for each in found["not_checked"]]
    assert "no-default" in found["checked"]
    assert "Traceback" not in done.stderr


def test_fifty_three_links_take_no_longer_than_a_look_may(lab_of: BuildLab) -> None:
    lab = lab_of(53)

    assert doctor(lab.router).seconds < 5.0
