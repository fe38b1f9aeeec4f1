"""The pages under docs/recipes: the file of each does what the recipe was for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.core.net import Family
from polywan.lab import recipe
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections, shares
from support.lan_clients import as_clients, ask_from
from support.netns import with_servers
from support.recipes import file_of, with_lab_targets

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

ROOT = Path(__file__).parents[2]
V4 = SERVERS[Family.V4][0]


def rename(lab: Lab, names: Mapping[str, str]) -> None:
    """Give the router's devices the names that the page uses, and set them up again as they were."""
    lines = []
    for old, new in names.items():
        lines += [f"link set dev {old} down", f"link set dev {old} name {new}", f"link set dev {new} up"]
    for uplink in lab.topology.uplinks:
        new = names.get(uplink.interface, uplink.interface)
        lines += [re.sub(rf"\bdev {uplink.interface}\b", f"dev {new}", line) for line in recipe.bring_up(uplink)]
    lab.router.ip(lines)


def cable(lab: Lab, number: int, *, up: bool) -> None:
    """Plug or pull the cable of an uplink whose device was renamed: at the provider's end."""
    lab.provider(number).run(["ip", "link", "set", "wan", "up" if up else "down"])


def test_vpn_clients_are_spread_over_the_pool_and_nobody_else(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(3, point_to_point=(1, 2, 3), families=(Family.V4,))
    # What made the recipe fail: answers by a session that main would not use are dropped.
    lab.router.sysctl({"ipv4/conf/all/rp_filter": 1})
    rename(lab, {"wan1": "ppp0", "wan2": "ppp1", "wan3": "ppp2", "lan0": "tun0"})
    lab.router.ip(["address replace 192.168.15.1/24 dev tun0", "address replace 10.8.8.1/24 dev tun0"])
    vpn = as_clients(lab, [f"10.8.8.{n}" for n in range(2, 14)])
    lab.client.ip(["route replace default via 10.8.8.1"])
    start_daemon(lab, with_lab_targets(file_of("pppoe-pool-for-vpn-clients.md"), lab))

    async def story() -> None:
        seen = Counter([await ask_from(lab, source, V4) for source in vpn])
        assert seen == {1: 4, 2: 4, 3: 4}
        others = Counter([await ask_from(lab, "192.168.15.10", V4) for _ in range(6)])
        assert others == {1: 6}

    with_servers(lab, story)


@pytest.mark.parametrize("family", [Family.V4, Family.V6])
def test_a_computer_uses_its_cable_and_its_wifi(lab_of: BuildLab, start_daemon: StartDaemon, family: Family) -> None:
    lab = lab_of(2)
    rename(lab, {"wan1": "eth0", "wan2": "wlan0"})
    start_daemon(lab, with_lab_targets(file_of("wired-and-wifi-host.md"), lab))

    async def story() -> None:
        opened = await open_connections(lab, 20, SERVERS[family][0], namespace=lab.router)
        opened.close()
        # The server tells whose address it saw: a provider drops sources that are not its own.
        assert shares(a.uplink for a in opened.attempts) == {1: 10, 2: 10}

    with_servers(lab, story)


def test_fifty_three_links_have_equal_shares(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    whole = (ROOT / "examples/fifty-three-macvlans.toml").read_text("utf-8")
    assert file_of("fifty-three-macvlans.md").split("#")[0] in whole
    lab = lab_of(53, families=(Family.V4,))
    rename(lab, {f"wan{n}": f"vwan{n}" for n in range(1, 54)} | {"lan0": "br-lan"})
    lab.router.ip(["address replace 192.168.15.1/24 dev br-lan"])
    start_daemon(lab, with_lab_targets(whole, lab))

    async def story() -> None:
        opened = await open_connections(lab, 106, V4)
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == dict.fromkeys(range(1, 54), 2)

    with_servers(lab, story)


def test_odd_and_even_clients_have_a_line_each_and_one_line_takes_all_when_the_other_fails(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2, point_to_point=(1, 2), families=(Family.V4,))
    rename(lab, {"wan1": "ppp0", "wan2": "ppp1", "lan0": "eth0"})
    lab.router.ip(["address replace 192.168.15.1/24 dev eth0"])
    clients = as_clients(lab, [f"192.168.15.{n}" for n in range(101, 109)])
    daemon = start_daemon(lab, with_lab_targets(file_of("dual-adsl-odd-and-even.md"), lab))
    by_parity = {c: 1 + int(c.rpartition(".")[2]) % 2 for c in clients}

    def state() -> str:
        return str(daemon.uplink(2).state)

    async def story() -> None:
        assert {c: await ask_from(lab, c, V4) for c in clients} == by_parity
        cable(lab, 2, up=False)
        wait_for(lambda: state() == "down")
        assert {await ask_from(lab, c, V4) for c in clients} == {1}
        cable(lab, 2, up=True)
        wait_for(lambda: state() == "up", 15.0)
        assert {c: await ask_from(lab, c, V4) for c in clients} == by_parity

    with_servers(lab, story)


def test_of_five_connections_to_one_site_four_take_the_cable_and_all_take_lte_when_it_fails(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    rename(lab, {"wan1": "bond0", "wan2": "wwan0"})
    daemon = start_daemon(lab, with_lab_targets(file_of("ethernet-and-lte.md"), lab))

    async def story() -> None:
        opened = await open_connections(lab, 25, V4, namespace=lab.router)
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {1: 20, 2: 5}
        cable(lab, 1, up=False)
        wait_for(lambda: daemon.uplink(1).state == "down")
        opened = await open_connections(lab, 10, V4, namespace=lab.router)
        opened.close()
        assert shares(a.uplink for a in opened.attempts) == {2: 10}

    with_servers(lab, story)
