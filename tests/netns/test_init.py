"""`polywan init` among real links: what it takes for an uplink, and the whole way from there to balanced traffic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.dhcp import Provider, client
from support.netns import until, with_servers
from support.pppoe import dialled

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

    from support.netns import BuildLab, StartDaemon, WaitFor

SERVER: Final = SERVERS[Family.V4][0]
LEASED: Final = 30.0
WHOLE_WAY: Final = 60.0
"""Seconds from `init` to balanced traffic; three minutes are promised for all three commands."""


def init(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the verb in the router."""
    return lab.router.run([sys.executable, "-m", "polywan", "init", *words], check=False)


def facts(lab: Lab) -> dict[str, Any]:
    """Return what it sees, without a file."""
    done = init(lab, "--json", "--config", "/run/polywan-none/polywan.toml")
    assert done.returncode in {0, 1}, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def verdicts(lab: Lab) -> dict[str, str]:
    return {seen["link"]: seen["verdict"] for seen in facts(lab)["seen"]}


def why(lab: Lab, link: str) -> str:
    return next(str(seen["why"]) for seen in facts(lab)["seen"] if seen["link"] == link)


@pytest.fixture
def two(lab_of: BuildLab) -> Lab:
    return lab_of(2, families=(Family.V4,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "polywan.toml"


def test_uplinks_and_the_lan_are_told_apart_in_both_families(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=FAMILIES)
    found = facts(lab)
    assert verdicts(lab) == {"lan0": "not", "wan1": "uplink", "wan2": "uplink"}
    assert why(lab, "wan1") == "IPv4 default route by 100.64.1.1 and IPv6 default route by 2001:db8:64:1::1"
    assert next(seen["lan"] for seen in found["seen"] if seen["link"] == "lan0")


def needing(kind: str, *marks: pytest.MarkDecorator) -> ParameterSet:
    return pytest.param(kind, marks=[pytest.mark.needs(kind), *marks])


@pytest.mark.parametrize("kind", [needing("bridge"), needing("bond", pytest.mark.kernel)])
def test_what_has_the_address_counts_in_place_of_its_members(two: Lab, kind: str) -> None:
    moved = ["link set wan1 down", "address flush dev wan1", "link set wan1 master up0", "link set wan1 up"]
    two.router.ip([f"link add up0 type {kind}", *moved, "link set up0 up"])
    two.router.ip(["address add 100.64.1.2/24 dev up0", "route add default via 100.64.1.1 dev up0 metric 9"])
    assert {link: verdict for link, verdict in verdicts(two).items() if link != "lan0"} == {
        "up0": "uplink",
        "wan1": "not",
        "wan2": "uplink",
    }
    assert "up0, which counts in its place" in why(two, "wan1")


@pytest.mark.needs("bridge")
def test_bridges_of_containers_and_their_cables_are_nothing(two: Lab) -> None:
    two.router.ip(
        [
            *("link add docker0 type bridge", "link set docker0 up", "address add 172.17.0.1/16 dev docker0"),
            *("link add veth7 type veth peer name inner", "link set veth7 master docker0", "link set veth7 up"),
            "link set inner up",
        ]
    )
    found = facts(two)
    assert verdicts(two)["docker0"] == "not"
    assert {"veth7", "inner"} <= set(found["passed_over"])
    assert [seen["link"] for seen in found["seen"] if seen["lan"]] == ["lan0"]


@pytest.mark.kernel
@pytest.mark.parametrize("kind", [needing("wireguard"), needing("vrf")])
def test_vpns_and_vrfs_are_none_whatever_routes_they_have(two: Lab, kind: str) -> None:
    more = "table 77" if kind == "vrf" else ""
    two.router.ip([f"link add x0 type {kind} {more}", "link set x0 up"])
    if kind == "wireguard":
        two.router.ip(["address add 10.8.0.2/24 dev x0", "route add 0.0.0.0/1 dev x0", "route add 128.0.0.0/1 dev x0"])
        assert "it has taken 0.0.0.0/1 and 128.0.0.0/1 of main" in why(two, "x0")
    else:
        two.router.ip(["link set wan1 master x0"])
        assert "belongs to VRF x0" in why(two, "wan1")
    assert verdicts(two)["x0"] == "not"


def test_tables_of_a_hand_made_script_are_read(two: Lab) -> None:
    two.router.ip(["route del default dev wan1", "route add default via 100.64.1.1 dev wan1 table 101"])
    two.router.ip(["rule add fwmark 0x65 lookup 101"])
    assert verdicts(two) == {"lan0": "not", "wan1": "uplink", "wan2": "uplink"}
    assert why(two, "wan1") == "IPv4 default route by 100.64.1.1 in table 101"


def test_fifty_three_macvlans_are_a_short_file(lab_of: BuildLab) -> None:
    lab = lab_of(53, trunk=True, families=(Family.V4,))
    found = facts(lab)
    assert len(found["uplinks"]) == 53
    assert found["text"].count("\n") < 62


@pytest.fixture
def leased(two: Lab) -> Iterator[Lab]:
    """Two DHCP links whose clients give both routes the same metric, so that the kernel takes one."""
    with ExitStack() as stack:
        for number in (1, 2):
            two.router.ip([f"address flush dev wan{number}"])
            provider = stack.enter_context(closing(Provider(two, number)))
            provider.lease(f"100.64.{number}.50", f"100.64.{number}.1")
            stack.enter_context(client(two.router, "dhclient", f"wan{number}"))
            # Debian's ifup names the file here.
            Path(f"/var/lib/dhcp/dhclient.wan{number}.leases").symlink_to(f"/run/dhclient.wan{number}.leases")
        yield two


@pytest.mark.needs("dnsmasq", "dhclient")
def test_two_dhcp_links_with_one_default_route_are_two_uplinks(leased: Lab, wait_for: WaitFor) -> None:
    def addressed() -> bool:
        return all(f"100.64.{n}.50" in leased.router.run(["ip", "address", "show"]).stdout for n in (1, 2))

    wait_for(addressed, LEASED, "leases")
    assert verdicts(leased) == {"lan0": "not", "wan1": "uplink", "wan2": "uplink"}


@pytest.mark.kernel
@pytest.mark.needs("ppp", "pppd", "pppoe-server")
def test_pppoe_sessions_without_a_default_route_are_uplinks_and_their_cables_are_not(lab_of: BuildLab) -> None:
    lab = lab_of(2, families=(Family.V4,))
    with dialled(lab, (1, 2)):
        found = {link: verdict for link, verdict in verdicts(lab).items() if link != "tun0"}
        assert found == {"wan1": "not", "wan2": "not", "ppp0": "uplink", "ppp1": "uplink"}
        assert why(lab, "ppp0").startswith("PPPoE session over wan1 and wan2, has the address 100.64.1.10")
        assert why(lab, "wan1") == "carries a PPPoE session, which is the uplink"


def test_a_file_that_is_there_stays_as_it_is(two: Lab, file: Path) -> None:
    file.parent.mkdir()
    file.write_text('# mine\n[uplinks.fibre]\ninterface="wan1"\nweight=3\n')
    before = (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino)
    done = init(two, "--yes", "--config", str(file))
    assert done.returncode == 9
    assert (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) == before
    assert list(file.parent.iterdir()) == [file]
    assert '+interface = "wan2"' in done.stdout
    assert "not in your file: wan2" in done.stdout


def test_nothing_in_the_kernel_is_touched(two: Lab, file: Path) -> None:
    def state() -> list[str]:
        shown = [["nft", "list", "ruleset"], ["ip", "rule"], ["ip", "-4", "route", "show", "table", "all"]]
        return [two.router.run(argv).stdout for argv in shown]

    before = state()
    assert init(two, "--yes", "--config", str(file), "--state-dir", str(file.parent / "state")).returncode == 0
    assert state() == before


def test_looking_needs_no_privileges_and_complains_of_nothing(two: Lab) -> None:
    without = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"]
    done = two.router.run([*without, sys.executable, "-m", "polywan", "init", "--print"], check=False)
    assert done.returncode == 0
    assert "[uplinks.wan1]" in done.stdout
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["lan0", "wan1", "wan2", "no"]


def test_from_init_to_balanced_traffic(two: Lab, file: Path, start_daemon: StartDaemon) -> None:
    """The whole way with what `init` writes; only the targets are the lab's, since there is no Internet here."""
    began = time.monotonic()
    done = init(two, "--yes", "--config", str(file), "--state-dir", str(file.parent / "state"))
    assert done.returncode == 0, done.stderr
    assert "the daemon would make" in done.stdout
    assert "warning" not in done.stderr
    targets = ", ".join(f'"{address}"' for address in SERVERS[Family.V4])
    daemon = start_daemon(two, f"{file.read_text('utf-8')}\n[health]\ntargets = [{targets}]\n")

    async def story() -> None:
        await until(lambda: all(u.state == "up" for u in daemon.status().uplinks), WHOLE_WAY, 0.05)
        with closing(await open_connections(two, 20, SERVER)) as opened:
            assert shares(a.uplink for a in opened.attempts) == {1: 10, 2: 10}

    with_servers(two, story)
    assert time.monotonic() - began < WHOLE_WAY
    # Its own routes are no evidence: beside the daemon, init sees the same.
    again = init(two, "--yes", "--config", str(file))
    assert (again.returncode, "says the same" in again.stdout) == (0, True), again.stdout
