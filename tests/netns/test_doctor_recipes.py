"""Set-ups by hand on real routers: doctor names what is wrong with each, and nothing on one that is right."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from support.doctor import doctor, mend, of, only

if TYPE_CHECKING:
    from support.netns import BuildLab

pytestmark = pytest.mark.needs("iptables-nft")

NTH: Final = "-t mangle -A PREROUTING -i lan0 -m conntrack --ctstate NEW -m statistic --mode nth"
ONCE: Final = "-m connmark --mark 0 -j CONNMARK --set-mark"
RESTORE: Final = "-j CONNMARK --restore-mark"
SPECIFIC: Final = "rule add priority 90 lookup main suppress_prefixlength 0"


@pytest.fixture
def router(lab_of: BuildLab) -> Namespace:
    """A router whose two lines have a table and a mark each, made by hand, and made well."""
    lab: Lab = lab_of(2, families=(Family.V4,))
    lab.router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1"])
    for number in (1, 2):
        via = lab.router.run(["ip", "-4", "route", "show", "default", "dev", f"wan{number}"]).stdout.split()[2]
        lab.router.ip(
            [
                f"route add default via {via} dev wan{number} table {200 + number}",
                f"rule add priority 10{number} fwmark {number} lookup {200 + number}",
            ]
        )
    lab.router.ip([SPECIFIC])
    return lab.router


def iptables(router: Namespace, *lines: str) -> None:
    for line in lines:
        router.run(["iptables-nft", *line.split()])


def well_made(router: Namespace) -> None:
    iptables(
        router,
        f"{NTH} --every 2 --packet 0 {ONCE} 1",
        f"{NTH} --every 1 --packet 0 {ONCE} 2",
        f"-t mangle -A PREROUTING -i lan0 {RESTORE}",
        "-t nat -A POSTROUTING -o wan1 -j MASQUERADE",
        "-t nat -A POSTROUTING -o wan2 -j MASQUERADE",
    )


def test_a_set_up_that_is_well_made_has_no_finding(router: Namespace) -> None:
    well_made(router)

    assert doctor(router).findings == ()


def test_a_choice_for_every_new_packet_is_found_and_its_fix_leaves_the_rules_in_their_order(router: Namespace) -> None:
    rules = [f"{NTH} --every 2 --packet {number} -j CONNMARK --set-mark {number + 1}" for number in (0, 1)]
    iptables(router, *rules)

    mend(router, only(doctor(router), "nth-per-packet"))

    found = doctor(router)
    assert of(found, "nth-per-packet") == of(found, "last-writer-wins") == []
    listed = router.run(["iptables-nft", "-t", "mangle", "-S", "PREROUTING"]).stdout.splitlines()
    assert [line.split("--packet ")[1][0] for line in listed if "statistic" in line] == ["0", "1"]


def test_a_ladder_whose_last_rule_takes_everything_is_found(router: Namespace) -> None:
    for every, mark in ((2, 1), (1, 2)):
        iptables(router, f"{NTH} --every {every} --packet 0 -j CONNMARK --set-mark {mark}")

    assert "mark 0x1 0 %" in only(doctor(router), "last-writer-wins").evidence[-1]


def test_answers_that_their_mark_sends_away_are_found_and_mended(router: Namespace) -> None:
    router.ip([SPECIFIC.replace("add", "del")])
    iptables(router, f"-t mangle -A PREROUTING {RESTORE}")

    findings = of(doctor(router), "restore-without-direction")

    assert len(findings) == 2
    mend(router, findings[0])
    assert of(doctor(router), "restore-without-direction") == []


def test_a_table_that_a_redial_has_emptied_is_found(router: Namespace) -> None:
    well_made(router)
    router.run(["ip", "route", "flush", "table", "202"])

    assert "table 202" in only(doctor(router), "emptied-table").what


def test_a_multipath_default_that_chooses_by_addresses_is_found_and_mended(router: Namespace) -> None:
    router.run(["sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=0"])
    router.run(
        [
            "ip",
            "route",
            "replace",
            "default",
            "nexthop",
            "via",
            "100.64.1.1",
            "dev",
            "wan1",
            "nexthop",
            "via",
            "100.64.2.1",
            "dev",
            "wan2",
        ]
    )

    mend(router, only(doctor(router), "hash-policy"))

    assert of(doctor(router), "hash-policy") == []


def test_copies_of_a_network_that_was_renumbered_are_found_and_removed(router: Namespace) -> None:
    router.ip(["route add 192.168.99.0/24 dev lan0 scope link table 201"])

    finding = only(doctor(router), "stale-copied-table")

    assert "192.168.99.0/24 dev lan0" in finding.evidence[0]
    mend(router, finding)
    assert of(doctor(router), "stale-copied-table") == []


def test_translation_between_the_networks_behind_the_box_is_found(router: Namespace) -> None:
    router.ip(["link add lan1 type veth peer name lan1p", "link set lan1 up", "link set lan1p up"])
    router.ip(["address add 10.8.8.1/24 dev lan1"])
    iptables(router, "-t nat -A POSTROUTING -s 10.8.8.0/24 -j MASQUERADE")

    assert "lan1 (10.8.8.0/24) to lan0" in only(doctor(router), "bare-masquerade").what


def test_scripts_of_the_box_are_read(router: Namespace) -> None:
    folder, lock = Path("/etc/network"), Path("/run/lock/if-up.ppp0")
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "own", str(folder)], check=True)
    try:
        (folder / "if-up.d").mkdir()
        script = (
            "while [ -e /run/lock/if-up.$IFACE ]; do sleep 3; done\nip route add default equalize nexthop dev wan1\n"
        )
        (folder / "if-up.d/uplinks").write_text(script, "ascii")
        lock.parent.mkdir(exist_ok=True)
        lock.touch()
        os.utime(lock, (time.time() - 3600, time.time() - 3600))

        found = doctor(router)

        assert "/etc/network/if-up.d/uplinks:2:" in only(found, "equalize").evidence[0]
        assert str(lock) in only(found, "stale-lock").what
    finally:
        lock.unlink(missing_ok=True)
        subprocess.run(["umount", str(folder)], check=True)
