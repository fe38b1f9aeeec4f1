"""Doctor on boxes whose links are in order and the rest is not: settings, units, clocks, files, connection tracking."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.codec import decode
from polywan.api.doctor import Diagnosis, Finding
from polywan.api.requests import What
from polywan.core.net import Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from support.dhcp import own_etc
from support.doctor import doctor, of, only

if TYPE_CHECKING:
    from polywan.lab.daemon import DaemonProcess
    from support.netns import BuildLab, StartDaemon, WaitFor

TRACKING = Path("/proc/sys/net/netfilter")
MOST = 300_000
"""Connections that a test opens at most: 1 to 5 s."""

PARTS = 60_000
"""Ports of one address."""

Write = Callable[[str, str], Path]


@pytest.fixture
def write() -> Iterator[Write]:
    """Write files of this sandbox's own /etc and /run; they go with the test, and what was there comes back."""
    own_etc()
    found: dict[Path, Path] = {}

    def put(path: str, text: str) -> Path:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.name}.aside")
        if file.is_symlink() or file.exists():
            file.unlink() if file in found else file.rename(aside)
        found[file] = aside
        file.write_text(text, encoding="utf-8")
        return file

    yield put
    for file, aside in found.items():
        file.unlink(missing_ok=True)
        if aside.is_symlink() or aside.exists():
            aside.rename(file)


def lead_to(file: Path, target: str) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(target)


@pytest.fixture
def systemd() -> Iterator[Path]:
    """Make this sandbox look like a box that systemd runs, without a unit of polywan; yield where units are."""
    own_etc()
    mark, units = Path("/run/systemd/system"), Path("/etc/systemd/system")
    mark.mkdir(parents=True)
    units.mkdir(parents=True, exist_ok=True)
    yield units
    shutil.rmtree(mark)
    (units / "polywan.service").unlink(missing_ok=True)
    (units / "multi-user.target.wants/polywan.service").unlink(missing_ok=True)


def hand_made(lab_of: BuildLab) -> Namespace:
    """A router with two links, of which a mark leads to the second; loose filtering, forwarding."""
    router = lab_of(2, families=(Family.V4,)).router
    router.ip(
        [
            "route del default via 100.64.2.1",
            "route add default via 100.64.2.1 dev wan2 table 202",
            "rule add fwmark 2 lookup 202",
        ]
    )
    router.sysctl({"ipv4/ip_forward": 1, **{f"ipv4/conf/{name}/rp_filter": 2 for name in ("all", "wan1", "wan2")}})
    return router


def test_files_that_undo_settings_at_the_next_start_are_found_and_a_later_file_mends_it(
    lab_of: BuildLab, write: Write
) -> None:
    router = hand_made(lab_of)
    write(
        "/etc/sysctl.d/10-network-security.conf", "net.ipv4.conf.default.rp_filter=2\nnet.ipv4.conf.all.rp_filter=2\n"
    )
    assert of(doctor(router), "sysctl-undone") == []

    write("/etc/sysctl.d/60-cis.conf", "net.ipv4.conf.*.rp_filter = 1\nnet.ipv4.ip_forward = 0\n")
    # A pattern does not outweigh the line that names `all`.
    forwarding = only(doctor(router), "sysctl-undone")

    assert forwarding.severity == "warning"
    assert "/etc/sysctl.d/60-cis.conf sets net.ipv4.ip_forward = 0" in forwarding.what
    write("/etc/sysctl.d/90-uplinks.conf", written(forwarding))
    write("/etc/sysctl.d/10-network-security.conf", "")
    filtering = only(doctor(router), "sysctl-undone")
    assert "net.ipv4.conf.*.rp_filter = 1" in filtering.what
    assert "wan2" in filtering.consequence
    write("/etc/sysctl.d/90-uplinks.conf", written(forwarding) + written(filtering))
    assert of(doctor(router), "sysctl-undone") == []


def written(finding: Finding) -> str:
    assert finding.fix is not None
    (step,) = finding.fix.steps
    assert step.path == "/etc/sysctl.d/90-uplinks.conf"
    return step.text


def test_a_unit_that_is_not_enabled_is_found_until_a_target_wants_it(
    lab: Lab, start_daemon: StartDaemon, systemd: Path
) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert of(doctor(lab.router, config=daemon.config, state=daemon.state), "not-at-boot") == []

    unit = systemd / "polywan.service"
    unit.write_text("[Service]\nExecStart=polywan run\n", "utf-8")
    finding = only(doctor(lab.router, config=daemon.config, state=daemon.state), "not-at-boot")
    assert "not enabled" in finding.what

    wants = systemd / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "polywan.service").symlink_to(unit)
    assert of(doctor(lab.router, config=daemon.config, state=daemon.state), "not-at-boot") == []

    lead_to(unit, "/dev/null")
    assert "masked" in only(doctor(lab.router, config=daemon.config, state=daemon.state), "not-at-boot").what


def test_a_file_whose_daemon_runs_in_another_namespace_is_found(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.kill()
    daemon.start()
    assert daemon.process is not None

    finding = only(doctor(lab.client, config=daemon.config, state=daemon.state), "not-at-boot")

    assert "no daemon of polywan runs in this network namespace" in finding.what
    assert f"process {daemon.process.pid} runs polywan in another network namespace" in finding.evidence


def test_a_changed_file_and_another_file_are_found(lab: Lab, start_daemon: StartDaemon) -> None:
    text = configuration(lab.topology, (1, 1, 1))
    daemon = start_daemon(lab, text)
    # Started as people do, so that its arguments can be read.
    daemon.kill()
    daemon.start()
    assert of(doctor(lab.router, config=daemon.config, state=daemon.state), "two-configurations") == []

    daemon.config.write_text(text.replace("weight = 1", "weight = 2", 1), encoding="utf-8")
    changed = only(doctor(lab.router, config=daemon.config, state=daemon.state), "two-configurations")
    assert "isp1" in " ".join(changed.evidence)
    daemon.reload()
    assert of(doctor(lab.router, config=daemon.config, state=daemon.state), "two-configurations") == []

    link = daemon.config.with_name("link.toml")
    link.symlink_to(daemon.config)
    assert of(doctor(lab.router, config=link, state=daemon.state), "two-configurations") == []

    other = daemon.config.with_name("other.toml")
    other.write_text(text, encoding="utf-8")
    found = only(doctor(lab.router, config=other, state=daemon.state), "two-configurations")
    assert f"the daemon uses {daemon.config}, not {other}" in found.what

    folder = daemon.config.parent / "conf.d"
    folder.mkdir()
    (folder / "lte.conf").write_text('[uplinks.lte]\ninterface = "wwan0"\n', encoding="utf-8")
    assert "lte.conf" in only(doctor(lab.router, config=daemon.config, state=daemon.state), "two-configurations").what


def test_a_bad_file_is_a_fault_with_every_mistake(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "polywan.toml"
    config.write_text('[uplinks.a]\ninterface = "wan1"\nwheight = 2\n[uplinks.b]\ninterface = 7\n', encoding="utf-8")

    finding = only(doctor(lab.router, config=config), "config-faults")

    assert len(finding.evidence) == 2
    assert f"{config}:3" in finding.evidence[0]


def test_what_the_daemon_warns_of_is_repeated_but_for_what_other_checks_find(
    lab: Lab, start_daemon: StartDaemon
) -> None:
    lab.router.sysctl({"ipv4/ip_forward": 0, "ipv6/conf/all/forwarding": 0})
    lab.router.run(["sysctl", "-qw", "net.netfilter.nf_conntrack_events=0"])
    text = configuration(lab.topology, (1, 1, 1)).replace("forwarding = true", 'forwarding = "auto"')
    daemon = start_daemon(lab, text)
    warnings = daemon.status().warnings
    assert any("forwarding is off" in text for text in warnings)

    found = doctor(lab.router, config=daemon.config, state=daemon.state)

    assert "nf_conntrack_events is 0" in only(found, "polywan-warnings").what
    assert of(found, "forwarding-off") != []


def test_zones_that_differ_are_found_by_rules_with_time_and_the_daemon_follows_a_new_zone(
    lab: Lab, start_daemon: StartDaemon, write: Write, wait_for: WaitFor
) -> None:
    text = configuration(lab.topology, (1, 1, 1)) + '[[rules]]\nuplink = "isp1"\ntime = "mon-fri 08:00-18:00"\n'
    daemon = start_daemon(lab, text)
    zone = write("/etc/localtime", "")
    lead_to(zone, "/usr/share/zoneinfo/Asia/Tokyo")
    wait_for(lambda: hours(daemon)[0] == (24 - 1) * 3600, what="the hours of Tokyo")
    lead_to(zone, "/usr/share/zoneinfo/Europe/Berlin")
    write("/etc/timezone", "Europe/Berlin\n")
    assert of(doctor(lab.router, config=daemon.config, state=daemon.state), "time-zone") == []

    write("/etc/timezone", "America/Lima\n")
    finding = only(doctor(lab.router, config=daemon.config, state=daemon.state), "time-zone")
    assert "the time zone is Europe/Berlin, and /etc/timezone says America/Lima" in finding.what


def hours(daemon: DaemonProcess) -> list[int]:
    """Seconds of the UTC day at which spans of rules begin, the last ones first."""
    text = daemon.client.ask(calls.SHOW, What(what="nft")).text
    return sorted((int(begin) for begin in re.findall(r"meta hour \{ (\d+)-", text)), reverse=True)


LIBNFTABLES_AWAY = """
mount --bind /dev/null "$(ldconfig -p | sed -n 's/.*libnftables.so.1.* => //p' | head -n 1)" || exit
"""
PPPD_AWAY = """
[ ! -e /usr/sbin/pppd ] || { touch /run/nothing && mount --bind /run/nothing /usr/sbin/pppd; } || exit
"""
CLOCK_OF_LATER = """
mount -t tmpfs later /var/lib && mkdir -p /var/lib/systemd/timesync || exit
touch -d '+3 days' /var/lib/systemd/timesync/clock || exit
"""


def doctor_where(place: Namespace, script: str, config: Path) -> Diagnosis:
    """Return what doctor finds once a script has changed what only it sees."""
    argv = [sys.executable, "-m", "polywan", "doctor", "--json", "--config", str(config)]
    done = place.run(["unshare", "--mount", "sh", "-c", f'{script}exec "$@"', "sh", *argv], check=False)
    assert done.returncode == 6, done.stderr
    return decode(Diagnosis, json.loads(done.stdout))


@pytest.fixture
def dialled(tmp_path: Path) -> Path:
    """A file with an uplink that is dialled."""
    file = tmp_path / "polywan.toml"
    file.write_text('[uplinks.dsl]\ninterface = "ppp0"\n', encoding="utf-8")
    return file


def test_a_library_that_is_not_there_is_found_with_its_packages(lab: Lab, dialled: Path) -> None:
    finding = of(doctor_where(lab.router, LIBNFTABLES_AWAY, dialled), "missing-feature")[0]

    assert finding.severity == "fault"
    assert "libnftables1" in finding.evidence[0]


def test_pppd_that_is_not_there_is_found_where_an_uplink_is_dialled(lab: Lab, dialled: Path) -> None:
    finding = of(doctor_where(lab.router, PPPD_AWAY, dialled), "missing-feature")[0]

    assert finding.what == "ppp0 is not there, and pppd(8) is not installed"


def test_a_clock_behind_what_a_time_service_has_confirmed_is_found(lab: Lab, dialled: Path) -> None:
    finding = only(doctor_where(lab.router, CLOCK_OF_LATER, dialled), "clock-unset")

    assert finding.severity == "fault"
    assert "/var/lib/systemd/timesync/clock" in finding.evidence[0]


def sized() -> int:
    return int((TRACKING / "nf_conntrack_max").read_text("ascii"))


def open_udp(place: Namespace, number: int) -> None:
    """Open so many connections of the box with itself, which are tracked as any."""
    place.nft("table ip tracked { chain output { type filter hook output priority 0; ct state new accept; }; }")
    place.sysctl({"netfilter/nf_conntrack_udp_timeout": 300})
    with closing(place.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for index in range(number):
            part, port = divmod(index, PARTS)
            sock.sendto(b"", (f"127.0.0.{part + 1}", port + 1024))


@pytest.mark.skipif(
    not 0 < sized() <= MOST, reason="this kernel has no connection tracking table that is small enough to fill"
)
def test_a_tracking_table_that_is_nearly_full_is_found_and_an_empty_one_is_not(lab: Lab) -> None:
    most = sized()
    open_udp(lab.router, most * 7 // 10)
    assert of(doctor(lab.router), "conntrack-full") == []

    open_udp(lab.router, most * 22 // 100)
    found = doctor(lab.router)

    finding = only(found, "conntrack-full")
    assert finding.severity == "warning"
    assert f"of {most} entries" in finding.what
    # As many buckets as entries: chains are short even so.
    assert of(found, "conntrack-buckets") == []


def in_first(*argv: str) -> None:
    subprocess.run(["nsenter", "--net=/proc/1/ns/net", *argv], check=True)


@pytest.mark.kernel
@pytest.mark.needs("uml")
def test_too_few_hash_buckets_are_found_by_the_length_of_chains_and_mended(lab: Lab) -> None:
    before = (TRACKING / "nf_conntrack_buckets").read_text("ascii").strip()
    in_first("sysctl", "-qw", "net.netfilter.nf_conntrack_buckets=1024")
    try:
        open_udp(lab.router, 6000)
        finding = only(doctor(lab.router), "conntrack-buckets")
        assert finding.severity == "warning"
        assert finding.evidence[2] == "a chain has 11.7 entries now, and 128.0 when the table is full"
        # A network namespace of its own may not resize what all share.
        assert finding.fix is not None
        assert "only the host" in finding.fix.how
        in_first("sysctl", "-qw", f"net.netfilter.nf_conntrack_buckets={sized()}")
        assert of(doctor(lab.router), "conntrack-buckets") == []
    finally:
        in_first("sysctl", "-qw", f"net.netfilter.nf_conntrack_buckets={before}")


def test_a_box_in_order_has_no_finding(lab: Lab, start_daemon: StartDaemon, systemd: Path) -> None:
    lab.router.sysctl({"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1})
    (systemd / "polywan.service").write_text("[Service]\nExecStart=polywan run\n", "utf-8")
    wants = systemd / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "polywan.service").symlink_to(systemd / "polywan.service")
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))

    assert doctor(lab.router, config=daemon.config, state=daemon.state).findings == ()
