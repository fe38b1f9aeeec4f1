"""Purging the package, when the program is gone: `postrm` leaves the kernel as polywan found it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from support.kernel_state import add_foreign, kernel
from support.shaped_lines import bandwidth, is_shaped, qdiscs
from support.shaped_lines import configuration as shaped

if TYPE_CHECKING:
    from support.netns import StartDaemon

POSTRM = Path(__file__).parents[2] / "packaging/debian/polywan.postrm"
MULTIPATH = """
[policies.default]
tiers = [["isp1", "isp2", "isp3"]]
algorithm = "multipath"
"""


def purge_kernel(lab: Lab, daemon: DaemonProcess) -> str:
    """Run the part of the script that is about the kernel; return what it says. It sees the daemon's state."""
    functions = POSTRM.read_text("utf-8").partition("\ncase $1 in\n")[0]
    script = f"{functions}\nstate={daemon.state}\nleave_kernel\n"
    return lab.router.run(["sh", "-c", script]).stderr


@pytest.mark.parametrize("more", ["", MULTIPATH], ids=["weighted", "multipath"])
def test_purge_leaves_the_kernel_as_found(lab: Lab, start_daemon: StartDaemon, more: str) -> None:
    add_foreign(lab)
    nexthops = lab.router.run(["ip", "nexthop"]).stdout
    before = kernel(lab)
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + more)
    assert kernel(lab) != before
    daemon.stop()
    assert purge_kernel(lab, daemon) == ""
    assert kernel(lab) == before
    assert lab.router.run(["ip", "nexthop"]).stdout == nexthops


@pytest.mark.kernel
@pytest.mark.needs("shaping")
@pytest.mark.parametrize("algorithm", ["cake", "fq_codel"])
def test_purge_removes_our_queues_and_no_others(lab: Lab, start_daemon: StartDaemon, algorithm: str) -> None:
    lab.router.run(["tc", "qdisc", "add", "dev", "wan2", "root", "handle", "1:", "htb"])
    lab.router.run(["tc", "qdisc", "add", "dev", "wan3", "ingress"])
    lab.router.run(["ip", "link", "add", "others", "type", "ifb"])

    def queues() -> dict[str, list[tuple[str, str]]]:
        names = re.findall(r"^[0-9]+: ([^:@]+)", lab.router.run(["ip", "-o", "link"]).stdout, re.MULTILINE)
        return {name: sorted((q["kind"], q["handle"]) for q in qdiscs(lab.router, name)) for name in names}

    before = queues()
    daemon = start_daemon(lab, shaped(lab, bandwidth("6Mbit", "2Mbit", algorithm)))
    assert is_shaped(lab, kind={"cake": "cake", "fq_codel": "htb"}[algorithm])
    assert queues() != before
    daemon.stop()
    assert purge_kernel(lab, daemon) == ""
    assert queues() == before


def test_after_a_reboot_purge_changes_no_setting(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    memory = (daemon.state / "memory.json").read_text("utf-8")
    daemon.down()
    daemon.stop()
    (daemon.state / "memory.json").write_text(memory, "utf-8")
    lab.router.sysctl({"ipv4/conf/wan1/rp_filter": 1})
    assert purge_kernel(lab, daemon) == ""
    assert lab.router.read_sysctl("ipv4/conf/wan1/rp_filter") == "1"


def test_purge_leaves_the_kernel_alone_while_another_daemon_runs(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    before = kernel(lab)
    assert "another daemon of polywan runs" in purge_kernel(lab, daemon)
    assert kernel(lab) == before


def test_purge_writes_no_file_that_is_no_setting(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.stop()
    target = tmp_path / "target"
    target.write_text("0")
    climbing = "net/" + "../" * 20 + str(target).lstrip("/")
    (daemon.state / "memory.json").write_text(f'{{\n "originals": {{\n  "{climbing}": "1"\n }}\n}}\n')
    purge_kernel(lab, daemon)
    assert target.read_text() == "0"


def test_purge_restores_a_device_whose_name_has_an_equals_sign(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)))
    daemon.stop()
    lab.router.run(["ip", "link", "add", "a=b", "type", "veth"])
    lab.router.sysctl({"ipv4/conf/a=b/rp_filter": 2})
    (daemon.state / "memory.json").write_text('{\n "originals": {\n  "net/ipv4/conf/a=b/rp_filter": "1"\n }\n}\n')
    assert purge_kernel(lab, daemon) == ""
    assert lab.router.read_sysctl("ipv4/conf/a=b/rp_filter") == "1"
