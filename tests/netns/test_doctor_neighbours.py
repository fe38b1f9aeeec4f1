"""Doctor beside other programs: those that are in the way are named, and what it says of them is what happens."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.api.codec import decode
from polywan.api.doctor import Diagnosis
from polywan.core.net import FAMILIES, Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.connections import answers
from support.doctor import doctor, mend, of, only
from support.managers import managed
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

SERVER: Final = SERVERS[Family.V4][0]
HAND_MADE: Final = ["route add default via 100.64.2.1 dev wan2 table 202", "rule add fwmark 2 lookup 202"]
"""A second line by hand: its mark leads to its table, main's default leaves by the first."""

CHECKS: Final = (
    "mark-overlap",
    "rules-before-ours",
    "manager-removes-rules",
    "ruleset-flusher",
    "foreign-offload",
    "two-balancers",
    "vpn-takes-default",
)

CILIUM = """
*mangle
:CILIUM_PRE_mangle - [0:0]
-A PREROUTING -m comment --comment "cilium-feeder: CILIUM_PRE_mangle" -j CILIUM_PRE_mangle
-A CILIUM_PRE_mangle -p tcp -m mark --mark 0x200/0xf00 -j MARK --set-xmark 0x200/0xf00
COMMIT
"""

DOCKER = """
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:DOCKER-USER - [0:0]
:DOCKER-FORWARD - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
"""

TAILSCALE = """
*filter
:ts-forward - [0:0]
-A FORWARD -j ts-forward
-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
COMMIT
"""

TAILSCALE_RULES: Final = [
    "rule add pref 5210 fwmark 0x80000/0xff0000 lookup main",
    "rule add pref 5230 fwmark 0x80000/0xff0000 lookup default",
    "rule add pref 5250 fwmark 0x80000/0xff0000 unreachable",
    "rule add pref 5270 lookup 52",
]


def loaded(place: Namespace, *texts: str) -> None:
    """Load rules as the programs do."""
    for text in texts:
        place.run(["iptables-nft-restore", "-n"], text=text)


def with_daemon(daemon: DaemonProcess) -> Diagnosis:
    return doctor(daemon.namespace, config=daemon.config, state=daemon.state)


def named(found: Diagnosis) -> list[str]:
    """Return which of the checks about other programs found something; all must have been made."""
    assert set(CHECKS) <= set(found.checked), found.not_checked
    return [finding.check for finding in found.findings if finding.check in CHECKS]


def test_strict_filtering_on_one_line_is_found_with_what_it_has_dropped(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=(Family.V4,))
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.wan2.rp_filter=1"])
    lab.router.ip(["route del default via 100.64.2.1", *HAND_MADE])

    async def story() -> None:
        with lab.router.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 2)
            sock.setblocking(False)
            sock.connect_ex((str(SERVER), ECHO_PORT))
            await until(lambda: "IPReversePathFilter" in dropped(lab.router), 5.0, 0.05)

    with_servers(lab, story)
    finding = only(doctor(lab.router), "strict-rp-filter")

    assert any("TcpExtIPReversePathFilter, nstat -az" in line for line in finding.evidence)
    mend(lab.router, finding)
    assert of(doctor(lab.router), "strict-rp-filter") == []


def dropped(place: Namespace) -> str:
    return place.run(["nstat", "-as", "TcpExtIPReversePathFilter"]).stdout


def as_found(place: Namespace) -> dict[str, str]:
    """Return everything that programs set up in a namespace, but counters."""
    listings = {
        "nft": ["nft", "-s", "list", "ruleset"],
        "settings": ["sysctl", "-a", "--pattern", r"net\.ipv[46]\.conf\..*(rp_filter|src_valid|forwarding|linkdown)"],
    }
    for family in FAMILIES:
        listings[f"rules {family}"] = ["ip", f"-{family}", "rule"]
        listings[f"routes {family}"] = ["ip", f"-{family}", "route", "show", "table", "all"]
    return {name: place.run(argv).stdout for name, argv in listings.items()}


def lines(text: str) -> set[str]:
    return {line.strip().partition(" expires ")[0] for line in text.splitlines()}


@pytest.mark.needs("iptables-nft")
def test_polywan_deletes_nothing_of_others_names_who_shares_its_marks_and_leaves_all_as_found(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2)
    loaded(lab.router, CILIUM, DOCKER, TAILSCALE)
    lab.router.ip(
        [
            *TAILSCALE_RULES,
            "rule add from 172.17.0.0/16 to 10.9.0.0/16 lookup 77",
            "route add 10.9.0.0/16 dev wan1 table 77",
        ]
    )
    before = as_found(lab.router)
    text = configuration(lab.topology, (1, 1)).replace("[global]", "[global]\nmark_mask = 0x3f00")
    daemon = start_daemon(lab, text)

    async def story() -> None:
        opened = await open_connections(lab, 10, SERVER)
        assert shares(a.uplink for a in opened.attempts) == {1: 5, 2: 5}
        opened.close()

    with_servers(lab, story)
    during = as_found(lab.router)
    for name in ("nft", "rules 4", "rules 6", "routes 4", "routes 6"):
        assert lines(before[name]) <= lines(during[name])
    found = with_daemon(daemon)
    assert named(found) == ["mark-overlap"]
    finding = only(found, "mark-overlap")
    assert finding.what == "Cilium uses mark bits of polywan (0x3f00)"
    assert finding.fix is not None
    assert "mark_mask = 0x3f000000" in finding.fix.how
    daemon.down()
    assert {name: lines(text) for name, text in as_found(lab.router).items()} == {
        n: lines(t) for n, t in before.items()
    }


@pytest.mark.needs("iptables-nft")
def test_the_proposed_mask_ends_the_overlap(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    loaded(lab.router, CILIUM, DOCKER, TAILSCALE)
    lab.router.ip(TAILSCALE_RULES)

    daemon = start_daemon(
        lab, configuration(lab.topology, (1, 1)).replace("[global]", "[global]\nmark_mask = 0x3f000000")
    )

    assert named(with_daemon(daemon)) == []


@pytest.mark.needs("iptables-nft")
def test_mwan3_beside_cilium_is_found_without_polywan(lab_of: BuildLab) -> None:
    lab = lab_of(2)
    mwan3 = "*mangle\n:mwan3_policy_balanced - [0:0]\n"
    rule = "-A mwan3_policy_balanced -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x200/0x3f00\nCOMMIT\n"
    loaded(lab.router, CILIUM, mwan3 + rule)

    finding = only(doctor(lab.router), "mark-overlap")

    assert "0x200 of 0xf00" in finding.what
    assert {"mwan3", "Cilium"} <= set(finding.what.split())


def test_rules_that_come_first_are_found_and_moved(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    for family, network in ((4, "203.0.113.0/24"), (6, "2001:db8:99::/48")):
        lab.router.run(["ip", f"-{family}", "rule", "add", "pref", "0", "from", network, "lookup", "main"])

    findings = of(with_daemon(daemon), "rules-before-ours")

    assert [finding.severity for finding in findings] == ["fault", "fault"]
    for finding in findings:
        mend(lab.router, finding)
    assert of(with_daemon(daemon), "rules-before-ours") == []
    for family, network in ((4, "203.0.113.0/24"), (6, "2001:db8:99::/48")):
        listed = lab.router.run(["ip", f"-{family}", "rule"]).stdout
        assert [line for line in listed.splitlines() if network in line] == [f"3:\tfrom {network} lookup main"]


MODEM: Final = """[Match]
Name=modem*
[Network]
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


@pytest.mark.needs("systemd-networkd", "root")
def test_networkd_takes_away_what_doctor_says_and_polywan_has_its_own_back(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    def rules() -> list[str]:
        return lab.router.run(["ip", "rule"]).stdout.splitlines()

    lab = lab_of(2, families=(Family.V4,))
    lab.router.ip(["address flush dev wan1"])
    networks = Path("/run/systemd/network")
    networks.mkdir(parents=True, exist_ok=True)
    (networks / "modem.network").write_text(MODEM, "utf-8")
    with managed(lab.router, "systemd-networkd") as manager:
        daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
        assert only(with_daemon(daemon), "manager-removes-rules").severity == "note"
        ours, since = rules(), len(daemon.log)
        lab.router.ip(["link add modem0 type veth peer name other0"])
        assert daemon.wait_log(lambda text: "drift.repaired" in text, 5.0, since) is not None
        wait_for(lambda: rules() == ours, 5.0, "its own rules are back")

        lab.router.ip(HAND_MADE)
        finding = only(with_daemon(daemon), "manager-removes-rules")
        assert finding.severity == "warning"
        assert "wan1" in finding.what
        assert any("fwmark 0x2 lookup 202" in line for line in finding.evidence)
        lab.router.ip(["link add modem1 type veth peer name other1"])
        wait_for(lambda: rules() == ours, 5.0, "its own rules are back, and no other is")

        daemon.stop()
        lab.router.ip(HAND_MADE[1:])
        finding = only(doctor(lab.router), "manager-removes-rules")
        assert finding.severity == "warning"
        assert finding.fix is not None
        part = Path("/run/systemd/networkd.conf.d") / Path(finding.fix.steps[0].path).name
        part.parent.mkdir()
        part.write_text(finding.fix.steps[0].text, "utf-8")
        manager.stop()
        manager.start()
        assert of(doctor(lab.router), "manager-removes-rules") == []
        before = rules()
        lab.router.ip(["link add modem2 type veth peer name other2"])
        wait_for(lambda: "modem2: Link UP" in Path("/run/networkd.log").read_text("utf-8"), 10.0, "it is set up")
        assert rules() == before
    shutil.rmtree(part.parent)
    (networks / "modem.network").unlink()


@contextmanager
def as_machine(place: Namespace, files: dict[str, str], base: Path) -> Iterator[list[str]]:
    """Yield the beginning of a command that sees /etc with these files alone, and the namespace as a whole machine."""
    shutil.rmtree(base, ignore_errors=True)
    for name, text in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text, "utf-8")
    script = f'mount --bind {base} /etc && exec "$@"'
    yield ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"]
    shutil.rmtree(base)


NFT_CONF = "#!/usr/sbin/nft -f\nflush ruleset\ntable inet filter {\n}\n"
UNIT = "systemd/system/sysinit.target.wants/nftables.service"


def examined(place: Namespace, files: dict[str, str], base: Path, config: Path) -> Diagnosis:
    with as_machine(place, files, base) as start:
        words = ["doctor", "--json", "--config", str(config), "--state-dir", "/nonexistent"]
        done = place.run([*start, sys.executable, "-m", "polywan", *words], check=False)
    return decode(Diagnosis, json.loads(done.stdout))


@pytest.mark.needs("iptables-nft")
def test_a_rule_file_that_flushes_is_named_and_takes_what_doctor_says(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    lab = lab_of(2, families=(Family.V4,))
    etc = {"nftables.conf": NFT_CONF, UNIT: ""}
    nowhere = tmp_path / "polywan.toml"
    lab.router.ip(["route del default via 100.64.2.1", *HAND_MADE])
    loaded(lab.router, "*mangle\n-A PREROUTING -i lan0 -m state --state NEW -j MARK --set-mark 2\nCOMMIT\n")

    finding = only(examined(lab.router, etc, tmp_path / "etc", nowhere), "ruleset-flusher")
    assert finding.severity == "warning"
    assert finding.evidence == ("/etc/nftables.conf:2: flush ruleset",)
    assert of(examined(lab.router, {"nftables.conf": NFT_CONF}, tmp_path / "etc", nowhere), "ruleset-flusher") == []
    lab.router.nft(NFT_CONF)
    assert "mark set" not in lab.router.run(["nft", "list", "ruleset"]).stdout
    assert of(examined(lab.router, etc, tmp_path / "etc", nowhere), "ruleset-flusher") == []

    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    finding = only(examined(lab.router, etc, tmp_path / "etc", daemon.config), "ruleset-flusher")
    assert finding.severity == "note"
    since = len(daemon.log)
    lab.router.nft(NFT_CONF)
    assert daemon.wait_log(lambda text: "drift.repaired" in text, 2.0, since) is not None
    wait_for(lambda: lab.router.run(["nft", "list", "table", "inet", "polywan"], check=False).returncode == 0, 2.0)


FW4: Final = """
table inet fw4 {
  flowtable ft { hook ingress priority 0; devices = { "lan0", "wan1", "wan2" }; }
  chain forward { type filter hook forward priority 0; meta l4proto { tcp, udp } flow add @ft; }
}
"""


@pytest.mark.kernel
@pytest.mark.needs("flowtable", "conntrack")
def test_a_flowtable_of_another_firewall_is_named_and_keeps_connections_on_a_dead_line(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2, families=(Family.V4,))
    lab.router.nft(FW4)
    assert only(doctor(lab.router), "foreign-offload").severity == "note"
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)).replace("[global]", "[global]\nfastpath = false"))
    finding = only(with_daemon(daemon), "foreign-offload")
    assert finding.severity == "warning"
    assert "wan1 and wan2" in finding.what

    def offloaded() -> bool:
        return lab.router.run(["conntrack", "-L", "-p", "tcp"]).stdout.count("[OFFLOAD]") == 4

    async def story() -> None:
        loop = asyncio.get_running_loop()
        with closing(await open_connections(lab, 4, SERVER)) as opened:
            doomed = [c.sock for c in opened.connections if c.attempt.uplink == 1]
            assert await answers(opened, {1, 2}) == 4
            assert await asyncio.to_thread(offloaded)
            lab.blackhole(1)
            await until(lambda: daemon.uplink(1).state == "down", 10.0, 0.05)
            for sock in doomed:
                await loop.sock_sendall(sock, b"still there?\n")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(loop.sock_recv(sock, 10), 2.0)
            lab.router.nft("delete table inet fw4")
            for sock in doomed:
                with pytest.raises(OSError, match="reset"):
                    await asyncio.wait_for(loop.sock_recv(sock, 10), 10.0)

    with_servers(lab, story)
    assert of(with_daemon(daemon), "foreign-offload") == []


def test_a_second_balancer_made_by_hand_is_a_fault_beside_polywan(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    lab.router.nft("""
table inet byhand {
  chain pre {
    type filter hook prerouting priority mangle;
    ct state new iifname "lan0" ct mark set numgen inc mod 2 map { 0 : 1, 1 : 2 }
    meta mark set ct mark
  }
}
""")
    lab.router.ip([*HAND_MADE, "route add default via 100.64.1.1 dev wan1 table 201", "rule add fwmark 1 lookup 201"])
    assert of(doctor(lab.router), "two-balancers") == []
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))

    finding = only(with_daemon(daemon), "two-balancers")

    assert finding.severity == "fault"
    assert "table inet byhand" in finding.evidence[0]


def test_a_tunnel_that_takes_everything_is_a_note_and_what_it_exempts_is_balanced(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2, families=(Family.V4,))
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))
    lab.router.ip(
        [
            "link add wg0 type veth peer name wg1",
            "link set wg1 up",
            "link set wg0 up",
            "route add default dev wg0 table 51820",
            "rule add pref 32762 lookup main suppress_prefixlength 0",
            "rule add pref 32763 not fwmark 51820 lookup 51820",
        ]
    )
    found = with_daemon(daemon)
    assert found.healthy
    finding = only(found, "vpn-takes-default")
    assert "wg-quick takes all IPv4 to the Internet: it leaves by wg0" in finding.what
    assert finding.fix is not None
    lab.router.run(finding.fix.how.split("`")[1].split())
    ours = ["nft", "list", "table", "inet", "polywan"]
    wait_for(lambda: "rule 32762: main decides" in lab.router.run(ours).stdout, 5.0, "polywan has read the rule")

    async def story() -> None:
        opened = await open_connections(lab, 10, SERVER)
        assert shares(a.uplink for a in opened.attempts) == {1: 5, 2: 5}
        opened.close()

    with_servers(lab, story)


def test_a_box_without_other_programs_has_no_finding(lab: Lab, start_daemon: StartDaemon) -> None:
    assert named(doctor(lab.router)) == []
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    assert named(with_daemon(daemon)) == []
    assert polywan(daemon, "status").returncode == 0
