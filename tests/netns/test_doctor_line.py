"""Doctor on lines that are broken one way or another: each is named, and lines that are well are not."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.api.doctor import Diagnosis
from polywan.core.net import Family
from polywan.doctor.checks.line import LINE
from polywan.doctor.examine import examine
from polywan.doctor.reading.collect import Places, read_box
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from support.dns_server import DnsServer, Zone
from support.doctor import doctor, mend, of, only
from support.page_server import PageServer
from support.pppoe import dialled
from support.recipes import with_lab_targets

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

V4 = (Family.V4,)
NOWHERE: Final = Path("/nonexistent")
PAGE: Final = SERVERS[Family.V4][0]
RESOLVER: Final = SERVERS[Family.V4][1]
FORWARD: Final = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}


def file_of(lab: Lab, folder: Path, more: str = "") -> Path:
    """Write a file with the lab's uplinks and targets."""
    lines = [f'[uplinks.{u.name}]\ninterface = "{u.interface}"\n' for u in lab.topology.uplinks]
    path = folder / "polywan.toml"
    path.write_text(with_lab_targets("".join(lines), lab) + more, encoding="utf-8")
    return path


def diagnosis(lab: Lab, places: Places) -> Diagnosis:
    """Look at the router with the checks of lines, and files of the system below another root."""
    with lab.router.entered():
        box = asyncio.run(read_box(places))
    return examine(box, LINE, 0.0)


def names() -> list[str]:
    return [check.name for check in LINE]


@pytest.mark.parametrize("daemon", [False, True], ids=["by hand", "polywan"])
def test_lines_that_are_well_have_no_finding(
    lab_of: BuildLab, start_daemon: StartDaemon, tmp_path: Path, daemon: bool
) -> None:
    lab = lab_of(2, point_to_point=(2,))
    lab.router.sysctl(FORWARD)
    config = file_of(lab, tmp_path)
    words: tuple[str, ...] = ()
    if daemon:
        words = ("--runtime-dir", str(start_daemon(lab, config.read_text("utf-8")).runtime))

    found = doctor(lab.router, *words, *names(), config=config)

    assert found.findings == ()
    assert [*found.checked] == names()
    assert found.seconds < 5


@pytest.mark.kernel
@pytest.mark.needs("ppp", "pppd", "pppoe-server")
def test_dialled_lines_that_are_well_have_no_finding(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2, families=V4)
    config = tmp_path / "polywan.toml"
    lines = [f'[uplinks.dsl{n}]\ninterface = "ppp{n - 1}"\n' for n in (1, 2)]
    config.write_text(with_lab_targets("".join(lines), lab), encoding="utf-8")
    with dialled(lab, (1, 2)):
        for number in (0, 1):
            lab.router.ip([f"route add default dev ppp{number} metric {100 + number}"])

        found = doctor(lab.router, *names(), config=config)

    assert found.findings == ()


@pytest.mark.needs("root")
def test_without_privileges_it_says_which_lines_it_could_not_ask(lab: Lab) -> None:
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-m", "polywan"]
    done = lab.router.run([*user, "doctor", "--json", "--config", "/nonexistent", *names()], check=False)

    skipped = {each["check"]: each["reason"] for each in json.loads(done.stdout)["not_checked"]}

    assert "grant CAP_NET_RAW" in skipped["gateway-silent"]
    assert "grant CAP_NET_RAW" in skipped["mtu-black-hole"]
    assert "link-errors" not in skipped


def test_a_gateway_that_does_not_answer_is_named_in_both_families(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2)
    lab.provider(1).ip(["link set wan arp off"])
    lab.blackhole(1)

    found = doctor(lab.router, config=file_of(lab, tmp_path))

    finding = only(found, "gateway-silent")
    assert "100.64.1.1" in finding.what
    assert "2001:db8:64:1::1" in finding.what
    assert any("no answer to ARP from 100.64.1.1" in line for line in finding.evidence)
    assert found.seconds < 5


def test_the_silent_gateway_of_a_running_daemon_is_asked_with_its_mark(
    lab_of: BuildLab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    lab = lab_of(2, families=V4)
    config = file_of(lab, tmp_path)
    daemon = start_daemon(lab, config.read_text("utf-8"))
    lab.provider(2).ip(["link set wan arp off"])
    lab.blackhole(2)

    found = doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=config)

    assert "gateway 100.64.2.1 of wan2" in only(found, "gateway-silent").what


def test_a_default_route_by_a_device_without_carrier_is_named(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2, families=V4)
    lab.cut(1)

    finding = only(doctor(lab.router, config=file_of(lab, tmp_path)), "gateway-silent")

    assert finding.what == "wan1 has no carrier: uplink isp1"
    assert any("best IPv4 default route" in line for line in finding.evidence)


@contextmanager
def page(place: Namespace, address: str, answer: bytes) -> Iterator[None]:
    sock = place.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, 80))
    with PageServer(sock, answer):
        yield


def test_a_captive_portal_is_told_from_a_page_that_answers(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2, families=V4)
    config = file_of(lab, tmp_path, f'http_url = "http://{PAGE}/204"\n')
    hook = "type nat hook prerouting priority dstnat;"
    good = b"HTTP/1.1 204 No Content\r\n\r\n"
    portal = b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n"
    with page(lab.server, str(PAGE), good), page(lab.provider(2), "100.64.2.1", portal):
        assert of(doctor(lab.router, config=config), "captive-portal") == []
        lab.provider(2).nft(
            f'table ip portal {{ chain arriving {{ {hook} iifname "wan" tcp dport 80 redirect; }}; }}\n'
        )

        finding = only(doctor(lab.router, config=config), "captive-portal")

    assert finding.severity == "fault"
    assert "wan2" in finding.what
    assert any("a captive portal at login.example" in line for line in finding.evidence)


def test_a_path_that_swallows_large_packets_is_measured_and_mended(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2)
    config = file_of(lab, tmp_path)
    hook = "type filter hook forward priority filter;"
    lab.provider(2).nft(f"table inet small {{ chain passing {{ {hook} meta length > 1433 drop; }}; }}\n")

    found = doctor(lab.router, config=config)

    finding = only(found, "mtu-black-hole")
    assert finding.what == "packets of more than 1433 bytes vanish on wan2"
    assert found.seconds < 5
    mend(lab.router, finding)
    assert of(doctor(lab.router, config=config), "mtu-black-hole") == []


def test_a_path_that_says_what_it_lets_pass_is_no_black_hole(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2)
    lab.provider(2).ip(["link set core mtu 1400"])

    assert of(doctor(lab.router, config=file_of(lab, tmp_path)), "mtu-black-hole") == []


@contextmanager
def resolver_for_second_provider(lab: Lab) -> Iterator[None]:
    """A resolver that answers the customers of the second provider only."""
    sock = lab.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((str(RESOLVER), 53))
    hook = "type filter hook input priority filter;"
    rule = "ip saddr 100.64.1.0/24 udp dport 53 drop"
    lab.server.nft(f"table ip customers {{ chain arriving {{ {hook} {rule}; }}; }}\n")
    with DnsServer(sock, {"example.com": Zone(["192.0.2.1"])}):
        yield


def root_of(lab: Lab, folder: Path, resolver: str = str(RESOLVER)) -> Path:
    """What systemd-networkd leaves behind, and a resolv.conf with the second provider's resolver."""
    index = lab.router.run(["ip", "-o", "link", "show", "wan2"]).stdout.partition(":")[0]
    leases = folder / "run/systemd/netif/leases"
    leases.mkdir(parents=True)
    lease = f"ADDRESS=100.64.2.2\nROUTER=100.64.2.1\nDNS={resolver}\n"
    (leases / index).write_text(lease, encoding="utf-8")
    (folder / "etc").mkdir()
    (folder / "etc/resolv.conf").write_text(f"nameserver {resolver}\n", encoding="utf-8")
    return folder


def test_a_resolver_that_is_asked_by_the_wrong_line_is_named_and_mended(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2, families=V4)
    places = Places(config=file_of(lab, tmp_path), state_dir=NOWHERE, root=root_of(lab, tmp_path))
    with resolver_for_second_provider(lab):
        finding = only(diagnosis(lab, places), "dns-of-other-provider")

        assert finding.what.startswith(f"resolver {RESOLVER} of the provider at wan2 gets questions by wan1")
        mend(lab.router, finding)
        assert of(diagnosis(lab, places), "dns-of-other-provider") == []


def test_the_file_of_a_daemon_gets_the_rule_that_a_resolver_needs(
    lab_of: BuildLab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    lab = lab_of(2, families=V4)
    config = file_of(lab, tmp_path)
    daemon = start_daemon(lab, config.read_text("utf-8"))
    places = Places(config=config, state_dir=daemon.state, runtime_dir=daemon.runtime, root=root_of(lab, tmp_path))
    with resolver_for_second_provider(lab):
        finding = only(diagnosis(lab, places), "dns-of-other-provider")

        assert finding.fix is not None
        file, reload = finding.fix.steps
        assert reload.command == ("polywan", "reload")
        for path in (config, daemon.config):
            path.write_text(path.read_text("utf-8") + file.text, encoding="utf-8")
        daemon.reload()
        assert of(diagnosis(lab, places), "dns-of-other-provider") == []


def test_a_resolver_that_answers_everybody_is_well_by_any_line(lab_of: BuildLab, tmp_path: Path) -> None:
    lab = lab_of(2, families=V4)
    places = Places(config=file_of(lab, tmp_path), state_dir=NOWHERE, root=root_of(lab, tmp_path))
    sock = lab.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((str(RESOLVER), 53))
    with DnsServer(sock, {"example.com": Zone(["192.0.2.1"])}):
        assert of(diagnosis(lab, places), "dns-of-other-provider") == []


def test_ipv6_addresses_whose_packets_leave_by_another_line_are_named_and_mended(lab_of: BuildLab) -> None:
    router = lab_of(2).router
    router.run(["ip", "-6", "route", "del", "default", "dev", "wan2"])
    router.run(["ip", "-6", "route", "append", "default", "via", "2001:db8:64:2::1", "dev", "wan2", "metric", "1025"])

    findings = of(doctor(router), "asymmetric-ipv6")

    assert findings
    for finding in findings:
        mend(router, finding)
    assert of(doctor(router), "asymmetric-ipv6") == []


@pytest.mark.parametrize("device", ["wan2", "wan2.7"], ids=["a card", "a VLAN's name"])
def test_two_lines_on_one_segment_answer_for_each_other_until_told_otherwise(lab_of: BuildLab, device: str) -> None:
    router = lab_of(2, families=V4, twins=True).router
    assert of(doctor(router), "same-network-twins") == []
    router.ip(["link set wan2 down", f"link set wan2 name {device}", f"link set {device} up"])
    router.ip([f"route add default via 100.64.1.1 dev {device} table 202", "rule add fwmark 2 lookup 202"])

    finding = only(doctor(router), "same-network-twins")

    assert finding.severity == "warning"
    mend(router, finding)
    assert of(doctor(router), "same-network-twins") == []


def test_two_routers_with_one_network_on_two_segments_are_a_note(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=V4)
    lab.provider(2).ip(["addr add 100.64.1.1/24 dev wan"])
    lab.router.ip(["addr add 100.64.1.3/24 dev wan2", "route replace default via 100.64.1.1 dev wan2 metric 102"])

    finding = only(doctor(lab.router), "same-network-twins")

    assert (finding.severity, "100.64.1.0/24" in finding.what) == ("note", True)


def test_a_port_that_is_forwarded_from_a_shared_address_is_a_note(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=V4)
    assert of(doctor(lab.router), "cgnat") == []
    lab.forward_port(8080, 80)

    findings = of(doctor(lab.router), "cgnat")

    assert [finding.severity for finding in findings] == ["note", "note"]
    assert any("dnat" in line for line in findings[0].evidence)


_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000


@pytest.mark.needs("tap", "ethtool")
def test_half_duplex_is_named_and_full_duplex_is_not(lab_of: BuildLab) -> None:
    router = lab_of(1, families=V4).router
    with router.entered():
        line = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(line, _TUNSETIFF, struct.pack("16sH22x", b"wan9", _IFF_TAP | _IFF_NO_PI))
    with os.fdopen(line, "wb", 0):
        router.ip(["addr add 100.64.9.2/24 dev wan9", "link set wan9 up"])
        router.ip(["route add default via 100.64.9.1 dev wan9 metric 109"])
        assert of(doctor(router), "link-errors") == []
        router.run(["ethtool", "-s", "wan9", "duplex", "half"])

        finding = only(doctor(router), "link-errors")

    assert finding.what.startswith("wan9 runs half duplex at ")


_ETH_P_PPP_SES: Final = 0x8864


class Noise:
    """Packets too short to be one, in the PPPoE session of the first line: the router's ppp0 counts errors."""

    def __init__(self, lab: Lab) -> None:
        sessions = lab.router.run(["cat", "/proc/net/pppoe"]).stdout
        number = next(line.split()[0] for line in sessions.splitlines() if line.endswith("wan1"))
        # The kernel prints the number as it is on the wire.
        session = int(number, 16).to_bytes(2, "little")
        self._sock = lab.provider(1).socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sock.bind(("wan", 0))
        ends = bytes.fromhex(lab.topology.uplink(1).mac.replace(":", "")) + self._sock.getsockname()[4]
        self._frame = ends + struct.pack("!HBB2sHB", _ETH_P_PPP_SES, 0x11, 0, session, 1, 0) + bytes(39)

    def close(self) -> None:
        self._sock.close()

    def send(self, frames: int) -> None:
        for _ in range(frames):
            self._sock.send(self._frame)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(0.05):
                self.send(1)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.kernel
@pytest.mark.needs("ppp", "pppd", "pppoe-server")
def test_damaged_packets_are_a_warning_while_more_arrive_and_a_note_later(lab_of: BuildLab) -> None:
    lab = lab_of(1, families=V4)
    with dialled(lab, (1,), ("defaultroute", "replacedefaultroute")):
        assert of(doctor(lab.router), "link-errors") == []
        with closing(Noise(lab)) as noise:
            noise.send(100)
            before = only(doctor(lab.router), "link-errors")
            with noise.going_on():
                now = only(doctor(lab.router), "link-errors")

    assert (before.severity, before.what) == ("note", "ppp0 has lost packets to errors of the line")
    assert (now.severity, now.what) == ("warning", "ppp0 loses packets to errors of the line")
    assert any("errors 1" in line for line in now.evidence)


def test_a_link_that_flaps_is_known_from_the_journal_with_the_daemon_and_after_it(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    lab = lab_of(2, families=V4)
    quick = configuration(lab.topology, (1, 1)).replace('hold_down = "3s"', 'hold_down = "0s"\nrise = 1', 1)
    config = tmp_path / "polywan.toml"
    config.write_text(quick, encoding="utf-8")
    daemon = start_daemon(lab, quick)
    for _ in range(4):
        wait_for(lambda: daemon.uplink(1).state == "up", 10.0, "up")
        lab.cut(1)
        wait_for(lambda: daemon.uplink(1).state == "down", 10.0, "down")
        lab.restore(1)
    wait_for(lambda: daemon.uplink(1).state == "up", 10.0, "up")

    running = only(doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=config), "carrier-flaps")
    daemon.stop()
    before = {file.name: file.read_bytes() for file in daemon.state.iterdir() if file.is_file()}
    after = only(doctor(lab.router, config=config, state=daemon.state), "carrier-flaps")

    assert running.what == after.what == "uplink isp1 (wan1) lost its link 4 times within a day"
    assert {file.name: file.read_bytes() for file in daemon.state.iterdir() if file.is_file()} == before
