"""The life of the package on each release: installed, configured, brought up to date under traffic, removed, purged."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from math import inf
from pathlib import Path

import pytest

from polywan.core.net import FAMILIES, Family
from polywan.lab.network import Lab
from polywan.lab.servers import SOCKET_FAMILY, STREAM_PORT
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import SteadyLoad, open_connections, shares
from polywan.lab.witness import Witnesses
from support.connections import answers
from support.machine.box import CONFIG, NEXT, SERVICE, Box
from support.netns import with_servers

INTERVAL = 0.05


class Download:
    """A transfer that goes on until it is told to end; what ended it earlier is raised then."""

    def __init__(self, sock: socket.socket) -> None:
        self.received = 0
        self._sock = sock
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def begin(cls, lab: Lab, family: Family) -> Download:
        """Open a connection to the server that sends without end."""
        sock = lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_STREAM)
        await asyncio.get_running_loop().sock_connect(sock, (str(SERVERS[family][0]), STREAM_PORT))
        return cls(sock)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with closing(self._sock):
            while True:
                async with asyncio.timeout(3.0):
                    data = await loop.sock_recv(self._sock, 1 << 16)
                if not data:
                    raise ConnectionAbortedError("the transfer was closed")
                self.received += len(data)

    async def end(self) -> int:
        """Stop, and return how many bytes came."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        return self.received


def under_traffic(box: Box, work: Callable[[], object]) -> int:
    """Do something while transfers go on and connections begin; return how many began, of which none was lost."""
    counted: list[int] = []

    async def story() -> None:
        downloads = [await Download.begin(box.lab, family) for family in (*FAMILIES, *FAMILIES)]
        began = time.monotonic()
        async with Witnesses(box.lab) as witnesses, SteadyLoad(box.lab, interval=INTERVAL) as load:
            await asyncio.to_thread(work)
            await asyncio.sleep(1.0)
        assert min([await download.end() for download in downloads]) > 1_000_000
        assert [attempt for attempt in load.attempts if not attempt.ok] == []
        assert "".join(flow.disturbed(began, inf, None) for flow in witnesses.flows) == ""
        counted.append(len(load.attempts))

    with_servers(box.lab, story)
    assert sum(seen.spoofed for seen in box.lab.all_seen().values()) == 0
    return counted[0]


def kernel(box: Box) -> dict[str, str]:
    """Everything of the box's networking that a package could leave behind, as text."""
    argvs = (
        ["ip", "rule"],
        ["ip", "-6", "rule"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "-6", "route", "show", "table", "all"],
        ["ip", "nexthop"],
        ["nft", "list", "ruleset"],
        ["sysctl", "--all", "--pattern", r"^net\.(ipv4|ipv6|netfilter)\.(?!.*(nf_conntrack_count|stat|random))"],
    )
    return {" ".join(argv): box.machine.run(*argv, check=False).stdout for argv in argvs}


@pytest.fixture(scope="module")
def found(bare: Box) -> dict[str, str]:
    """The kernel before the package came."""
    return kernel(bare)


@pytest.fixture(scope="module")
def installed(bare: Box, deb: Path, found: dict[str, str]) -> tuple[Box, str]:
    return bare, bare.install(deb)


@pytest.fixture(scope="module")
def box(installed: tuple[Box, str]) -> Box:
    return installed[0]


@pytest.fixture(scope="module")
def balancing(box: Box) -> Box:
    """A box after the two commands that the package tells of."""
    box.polywan("init", "--yes")
    box.machine.run("systemctl", "enable", "--now", SERVICE)
    return box


@pytest.fixture(scope="module")
def serving(balancing: Box) -> Box:
    """The same with health targets that are in the lab, which the resolvers of the default are not."""
    balancing.disk.write(CONFIG, balancing.config)
    balancing.machine.run("systemctl", "reload", SERVICE)
    balancing.balanced()
    return balancing


@pytest.fixture(scope="module")
def removed(serving: Box) -> tuple[Box, int]:
    """The same without the package, and the number of connections that began during the removal."""
    return serving, under_traffic(serving, lambda: serving.apt("remove", "polywan"))


@pytest.fixture(scope="module")
def purged(box: Box, serving: Box) -> Box:
    box.apt("purge", "polywan")
    return box


def test_the_installation_starts_nothing_and_says_what_to_do(installed: tuple[Box, str]) -> None:
    box, said = installed
    assert box.machine.show(SERVICE, "ActiveState") == "inactive"
    assert box.machine.run("systemctl", "is-enabled", SERVICE, check=False).stdout == "disabled\n"
    assert "polywan init" in said
    assert "systemctl enable --now polywan" in said


def test_the_installation_leaves_the_kernel_alone(box: Box, found: dict[str, str]) -> None:
    assert kernel(box) == found


def test_init_and_enable_are_enough_for_a_running_service(balancing: Box) -> None:
    assert balancing.machine.show(SERVICE, "ActiveState") == "active"
    assert {uplink["interface"] for uplink in balancing.status()["uplinks"]} == {"wan1", "wan2"}


def test_an_upgrade_under_traffic_loses_no_connection(serving: Box, newer: Path) -> None:
    before, config = serving.pid, serving.disk.read(CONFIG)

    def upgrade() -> None:
        serving.install(newer)
        serving.restarted(before)

    assert under_traffic(serving, upgrade) > 1 / INTERVAL
    assert (serving.status()["version"], serving.polywan("version").stdout) == (NEXT, f"polywan {NEXT}\n")
    assert serving.disk.read(CONFIG) == config
    serving.balanced()


def test_an_upgrade_whose_program_refuses_the_file_leaves_the_daemon_running(
    serving: Box, newer: Path, deb: Path
) -> None:
    before = serving.pid
    serving.disk.write(CONFIG, serving.config + "\nnonsense = 3\n")
    try:
        said = serving.install(deb)
    finally:
        serving.disk.write(CONFIG, serving.config)
    assert "nonsense" in said
    assert (serving.pid, serving.up()) == (before, {"isp1", "isp2"})


def test_a_removal_under_traffic_loses_no_connection(removed: tuple[Box, int]) -> None:
    box, began = removed
    assert began > 1 / INTERVAL
    assert box.machine.run("sh", "-c", "command -v polywan", check=False).stdout == ""


def test_after_a_removal_new_connections_are_still_shared(removed: tuple[Box, int]) -> None:
    box, _ = removed

    async def story() -> None:
        opened = await open_connections(box.lab, 10, SERVERS[Family.V4][0])
        assert shares(attempt.uplink for attempt in opened.attempts) == {1: 5, 2: 5}
        assert await answers(opened, (1, 2)) == 10
        opened.close()

    with_servers(box.lab, story)


def test_a_package_that_is_installed_again_takes_over_where_the_old_one_was(
    removed: tuple[Box, int], deb: Path
) -> None:
    box, _ = removed

    def again() -> None:
        box.install(deb)
        box.machine.run("systemctl", "enable", "--now", SERVICE)
        box.balanced()

    assert under_traffic(box, again) > 1 / INTERVAL


def test_a_purge_leaves_no_file(purged: Box) -> None:
    places = ("/etc", "/usr", "/var/lib", "/run", "/var/cache", "/var/log")
    found = purged.machine.run("find", *places, "-xdev", "-iname", "*polywan*", "-not", "-path", "*/systemd/journal/*")
    remaining = [line for line in found.stdout.splitlines() if not re.match(r"/var/(lib|log|cache)/(apt|dpkg)", line)]
    assert remaining == []


def test_a_purge_leaves_nothing_in_the_kernel(purged: Box, found: dict[str, str]) -> None:
    assert kernel(purged) == found
