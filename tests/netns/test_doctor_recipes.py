"""Doctor on routers that were set up by hand, with the commands of the recipes: what is wrong is named, and mended."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.api.doctor import Diagnosis
from polywan.core.net import Family
from polywan.doctor.checks.recipes import RECIPES
from polywan.kernel.firewall import read_firewall
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from support.doctor import doctor, mend, of, only

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

SCRIPTS: Final = Path("/usr/local/sbin")
HOUR: Final = 3600.0

POOL: Final = """\
{iptables} -t nat -A POSTROUTING -s 10.8.8.0/24 -j MASQUERADE
{iptables} -t mangle -A PREROUTING -s 10.8.8.0/24 -m state --state NEW {first} -j CONNMARK --set-mark 1
{iptables} -t mangle -A PREROUTING -s 10.8.8.0/24 -m state --state NEW {second} -j CONNMARK --set-mark 2
{iptables} -t mangle -A PREROUTING -m connmark --mark 1 -j CONNMARK --restore-mark
{iptables} -t mangle -A PREROUTING -m connmark --mark 2 -j CONNMARK --restore-mark
ip route add 10.8.8.0/24 dev tun0 table 200
ip route add default dev ppp0 table 200
ip route add 10.8.8.0/24 dev tun0 table 201
ip route add default dev ppp1 table 201
ip rule add fwmark 1 table 200
ip rule add fwmark 2 table 201
"""
"""The first recipe; tables have numbers, since names would be the machine's own."""

AS_WRITTEN: Final = {
    "first": "-m statistic --mode nth --every 2 --packet 0",
    "second": "-m statistic --mode nth --every 2 --packet 1",
}

HOST: Final = """\
ip rule add fwmark 10 table 110 prio 31000
ip rule add fwmark 11 table 111 prio 31000
ip route add 100.64.1.0/24 dev wan1 table 110
ip route add default via 100.64.1.1 table 110
ip route add 100.64.2.0/24 dev wan2 table 111
ip route add default via 100.64.2.1 table 111
iptables -t mangle -A OUTPUT -j CONNMARK --restore-mark
iptables -t mangle -A OUTPUT -m mark ! --mark 0 -j ACCEPT
iptables -t mangle -A OUTPUT -j MARK --set-mark 10
iptables -t mangle -A OUTPUT -m statistic --mode nth --every 2 --packet 0 -j MARK --set-mark 11
iptables -t mangle -A OUTPUT -j CONNMARK --save-mark
iptables -t nat -A POSTROUTING -o wan1 -j MASQUERADE
iptables -t nat -A POSTROUTING -o wan2 -j MASQUERADE
"""

DEBIAN: Final = """\
iptables -t nat -A POSTROUTING -o wan1 -j MASQUERADE
iptables -t nat -A POSTROUTING -o wan2 -j MASQUERADE
ip route add default via 100.64.1.1 dev wan1 table 10
ip route add default via 100.64.2.1 dev wan2 table 20
ip rule add iif wan1 priority 1001 table main
ip rule add fwmark 0x5/0xff priority 2001 table 10
ip rule add iif wan2 priority 1002 table main
ip rule add fwmark 0x2/0xff priority 2002 table 20
iptables -t mangle -N load-in
iptables -t mangle -N load-out
iptables -t mangle -A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff
iptables -t mangle -A PREROUTING -m mark ! --mark 0x0/0xff -j RETURN
iptables -t mangle -A PREROUTING -m mark --mark 0x0/0xff -j load-in
iptables -t mangle -A PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
iptables -t mangle -A OUTPUT -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff
iptables -t mangle -A OUTPUT -m mark ! --mark 0x0/0xff -j RETURN
iptables -t mangle -A OUTPUT -m mark --mark 0x0/0xff -j load-out
iptables -t mangle -A OUTPUT -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
iptables -t mangle -A load-in -m mark --mark 0x0/0xff -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x2/0xff
iptables -t mangle -A load-in -m mark --mark 0x0/0xff -j MARK --set-xmark 0x5/0xff
iptables -t mangle -A load-out -m mark --mark 0x0/0xff -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x2/0xff
iptables -t mangle -A load-out -m mark --mark 0x0/0xff -j MARK --set-xmark 0x5/0xff
"""  # noqa: E501 - as the recipe has it

NUMGEN: Final = """
table ip hand {
    chain prerouting {
        type filter hook prerouting priority mangle; policy accept;
        ct state new ct mark set numgen inc mod 2 map { 0 : 1, 1 : 2 }
        iifname "tun0" meta mark set ct mark
    }
}
"""

COPY: Final = """\
#!/bin/bash
/sbin/ip route ls table $SOURCE | grep -v default > /tmp/route-tmp
while read line; do
/sbin/ip route add table $DEST $line
done < "/tmp/route-tmp"
"""
UP: Final = """\
#!/bin/bash
while [ -e /var/lock/subsys/if-down.$IFNAME ]; do
sleep 3
done
touch /var/lock/subsys/if-up.$IFNAME
rm -f /var/lock/subsys/if-up.$IFNAME
"""
DOWN: Final = UP.replace("if-down", "if-").replace("if-up", "if-down").replace("if-.", "if-up.")


def carry_out(router: Namespace, commands: str) -> None:
    for command in commands.splitlines():
        router.run(command.split())


def named(found: Diagnosis) -> dict[str, str]:
    """Return the checks of this room that found something, with their severity; all must have been made."""
    names = {check.name for check in RECIPES}
    assert names <= set(found.checked), found.not_checked
    return {finding.check: finding.severity for finding in found.findings if finding.check in names}


@pytest.fixture
def pool(lab_of: BuildLab) -> Lab:
    """Two lines without routers, as pppd makes them, a third one with main's default, and VPN clients behind."""
    lab = lab_of(3, families=(Family.V4,), point_to_point=(1, 2), without_default=(1, 2))
    for old, new in {"lan0": "tun0", "wan1": "ppp0", "wan2": "ppp1"}.items():
        lab.router.ip([f"link set {old} down", f"link set {old} name {new}", f"link set {new} up"])
    lab.router.ip(["address flush dev tun0", "address add 10.8.8.1/24 dev tun0"])
    lab.client.ip(["address flush dev eth0", "address add 10.8.8.2/24 dev eth0", "route add default via 10.8.8.1"])
    lab.router.sysctl({"ipv4/ip_forward": 1})
    return lab


@pytest.fixture(params=["iptables", "iptables-legacy"])
def iptables(request: pytest.FixtureRequest, pool: Lab) -> str:
    program: str = request.param
    try:
        pool.router.run([program, "-t", "mangle", "-S"])
    except (OSError, RuntimeError) as error:
        pytest.skip(f"{program} does not work here: {error}")
    return program


@pytest.fixture
def scripts() -> Iterator[Path]:
    """Return a place for scripts that is the test's own."""
    subprocess.run(["mount", "-t", "tmpfs", "scripts", str(SCRIPTS)], check=True)
    try:
        yield SCRIPTS
    finally:
        subprocess.run(["umount", str(SCRIPTS)], check=True)


PORTS: Final = itertools.count(20_000)
"""Of clients: one that is used again would be the same connection still."""


def send_datagrams(lab: Lab, flows: int, each: int) -> None:
    """Send datagrams that stay without an answer."""
    with ExitStack() as stack, lab.client.entered():
        for _ in range(flows):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(("", next(PORTS)))
            for _ in range(each):
                sock.sendto(b"?", ("203.0.113.99", 9))


def counted(router: Namespace) -> dict[str, int]:
    """Return how many packets the rules have counted that set a connection's mark."""
    with router.entered():
        firewall = read_firewall()[0]
    rules = [rule for table in firewall.tables for chain in table.chains for rule in chain.rules]
    return {mark: r.packets or 0 for r in rules for mark in ("0x1", "0x2") if f"CONNMARK --set-xmark {mark}" in r.text}


def test_the_first_recipe_chooses_for_every_packet_until_it_is_mended(pool: Lab, iptables: str) -> None:
    carry_out(pool.router, POOL.format(iptables=iptables, **AS_WRITTEN))
    send_datagrams(pool, flows=4, each=3)

    found = doctor(pool.router)

    assert named(found) == {"nth-per-packet": "warning", "bare-masquerade": "note"}
    finding = only(found, "nth-per-packet")
    assert sum(counted(pool.router).values()) == 12
    mend(pool.router, finding)
    assert of(doctor(pool.router), "nth-per-packet") == []
    send_datagrams(pool, flows=8, each=3)
    assert counted(pool.router) == {"0x1": 4, "0x2": 4}


def test_halves_of_the_unmarked_are_named_and_mended(pool: Lab, iptables: str) -> None:
    guard = "-m connmark --mark 0 "
    carry_out(pool.router, POOL.format(iptables=iptables, **{k: guard + v for k, v in AS_WRITTEN.items()}))
    send_datagrams(pool, flows=8, each=1)
    assert counted(pool.router) == {"0x1": 4, "0x2": 2}

    found = doctor(pool.router)

    assert named(found) == {"last-writer-wins": "warning", "bare-masquerade": "note"}
    finding = only(found, "last-writer-wins")
    assert "mark 0x1 50%, mark 0x2 25%, no mark 25%" in finding.what
    mend(pool.router, finding)
    send_datagrams(pool, flows=8, each=1)
    assert counted(pool.router) == {"0x1": 4 + 4, "0x2": 4}
    assert named(doctor(pool.router)) == {"bare-masquerade": "note"}


def test_a_choice_of_numgen_is_found_too(pool: Lab) -> None:
    carry_out(pool.router, "\n".join(line for line in POOL.splitlines() if line.startswith("ip ")))
    pool.router.nft(NUMGEN)

    finding = only(doctor(pool.router), "nth-per-packet")

    assert "table ip hand" in finding.what
    assert finding.fix is not None
    assert "ct mark 0" in finding.fix.how


def test_answers_that_a_mark_leads_back_to_the_uplink_are_found_and_mended(pool: Lab, iptables: str) -> None:
    carry_out(pool.router, POOL.format(iptables=iptables, **AS_WRITTEN))
    assert of(doctor(pool.router), "restore-without-direction") == []
    # OpenVPN was started again: the kernel has deleted the routes by its device.
    pool.router.ip(["link set tun0 down", "link set tun0 up"])

    finding = only(doctor(pool.router), "restore-without-direction")

    assert "ppp0 and ppp1" in finding.what
    mend(pool.router, finding)
    assert of(doctor(pool.router), "restore-without-direction") == []


def test_a_table_that_its_device_has_emptied_is_found_and_mended(pool: Lab, iptables: str, scripts: Path) -> None:
    commands = POOL.format(iptables=iptables, **AS_WRITTEN)
    (scripts / "balance").write_text(f"#!/bin/sh\n{commands}", "utf-8")
    carry_out(pool.router, commands)
    pool.router.ip(["link set ppp1 down", "link set ppp1 up"])

    finding = only(doctor(pool.router), "emptied-table")

    assert "table 201" in finding.what
    assert "wan3" in finding.consequence
    mend(pool.router, finding)
    assert of(doctor(pool.router), "emptied-table") == []


def test_a_multipath_default_that_went_with_a_device_is_found_and_mended(pool: Lab, scripts: Path) -> None:
    line = "ip route add default nexthop dev ppp0 weight 1 nexthop dev ppp1 weight 1"
    (scripts / "balance").write_text(f"#!/bin/sh\n{line}\n", "utf-8")
    pool.router.ip(["route del default"])
    carry_out(pool.router, line)
    assert named(doctor(pool.router)) == {"hash-policy": "warning"}
    mend(pool.router, only(doctor(pool.router), "hash-policy"))
    assert named(doctor(pool.router)) == {}
    # The kernel deletes the whole route with a device, as when a session ends.
    pool.router.ip(["link del ppp0"])

    finding = only(doctor(pool.router), "lost-multipath")

    assert finding.severity == "fault"
    mend(pool.router, finding)
    assert of(doctor(pool.router), "lost-multipath") == []


def test_a_member_without_carrier_is_found_until_the_kernel_passes_over_it(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=(Family.V4,))
    lab.router.sysctl({"ipv4/conf/wan2/ignore_routes_with_linkdown": 0, "ipv4/fib_multipath_hash_policy": 1})
    both = "nexthop via 100.64.1.1 dev wan1 nexthop via 100.64.2.1 dev wan2"
    lab.router.ip(["route flush default", f"route add default {both}"])
    lab.cut(2)

    finding = only(doctor(lab.router), "lost-multipath")

    assert finding.severity == "fault"
    mend(lab.router, finding)
    assert only(doctor(lab.router), "lost-multipath").severity == "warning"


def test_the_second_recipe_s_host_has_no_finding(lab_of: BuildLab) -> None:
    router = lab_of(2, families=(Family.V4,)).router
    carry_out(router, HOST)

    assert named(doctor(router)) == {}


def test_the_fifth_recipe_s_host_has_no_finding(lab_of: BuildLab) -> None:
    router = lab_of(2, families=(Family.V4,)).router
    carry_out(router, DEBIAN)

    assert named(doctor(router)) == {}


def test_the_fourth_recipe_s_copies_and_locks_grow_old(pool: Lab, scripts: Path) -> None:
    carry_out(pool.router, "\n".join(line for line in POOL.splitlines() if line.startswith("ip ")))
    for name, text in {"cprt": COPY, "ip-up.local": UP, "ip-down.local": DOWN}.items():
        (scripts / name).write_text(text, "utf-8")
    assert named(doctor(pool.router)) == {}
    lock = Path("/run/lock/subsys/if-down.ppp0")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    os.utime(lock, (time.time() - HOUR,) * 2)
    pool.router.ip(["address add 10.9.9.1/24 dev tun0", "address del 10.8.8.1/24 dev tun0"])

    found = doctor(pool.router)

    assert named(found) == {"stale-copied-table": "warning", "stale-lock": "fault"}
    for finding in [*of(found, "stale-copied-table"), *of(found, "stale-lock")]:
        mend(pool.router, finding)
    assert named(doctor(pool.router)) == {}
    assert not lock.exists()


def test_a_script_with_equalize_is_found(lab_of: BuildLab, scripts: Path) -> None:
    (scripts / "balance").write_text("ip route add default equalize nexthop dev ppp0 nexthop dev ppp1\n", "utf-8")

    assert named(doctor(lab_of(1).router)) == {"equalize": "warning"}


def test_masquerading_between_networks_is_found_until_it_is_exempt(pool: Lab, iptables: str) -> None:
    carry_out(pool.router, POOL.format(iptables=iptables, **AS_WRITTEN))
    pool.router.ip(["link add lan0 type veth peer name lan9", "link set lan9 up", "link set lan0 up"])
    pool.router.ip(["address add 192.168.77.1/24 dev lan0"])

    finding = only(doctor(pool.router), "bare-masquerade")

    assert finding.severity == "warning"
    exempt = f"{iptables} -t nat -I POSTROUTING 1 -s 10.8.8.0/24 -d 192.168.77.0/24 -j RETURN"
    assert finding.fix is not None
    assert exempt in finding.fix.how
    carry_out(pool.router, exempt)
    assert of(doctor(pool.router), "bare-masquerade") == []


GOOD: Final = """\
iptables -t mangle -A PREROUTING -i tun0 -j CONNMARK --restore-mark
iptables -t mangle -A PREROUTING -i tun0 -m mark ! --mark 0 -j ACCEPT
iptables -t mangle -A PREROUTING -i tun0 -m statistic --mode nth --every 2 --packet 0 -j MARK --set-mark 1
iptables -t mangle -A PREROUTING -i tun0 -m mark --mark 0 -j MARK --set-mark 2
iptables -t mangle -A PREROUTING -i tun0 -j CONNMARK --save-mark
iptables -t nat -A POSTROUTING -o ppp0 -j MASQUERADE
iptables -t nat -A POSTROUTING -o ppp1 -j MASQUERADE
ip nexthop add id 1 dev ppp0
ip nexthop add id 2 dev ppp1
ip nexthop add id 10 group 1/2
ip route replace default nhid 10
sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv4.conf.all.src_valid_mark=1 net.ipv4.conf.all.rp_filter=2
"""


def test_a_good_set_up_by_hand_has_no_finding(pool: Lab) -> None:
    carry_out(pool.router, "\n".join(line for line in POOL.splitlines() if line.startswith("ip ")))
    carry_out(pool.router, GOOD)

    assert named(doctor(pool.router)) == {}


def test_polywan_s_own_tables_rules_and_marks_are_no_finding(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2, families=(Family.V4,))
    uplinks = "".join(f'[uplinks.isp{n}]\ninterface = "wan{n}"\ngateway = "100.64.{n}.1"\n' for n in (1, 2))
    daemon = start_daemon(lab, f"[global]\nforwarding = true\n{uplinks}")

    assert named(doctor(lab.router, "--runtime-dir", str(daemon.runtime), config=daemon.config)) == {}
