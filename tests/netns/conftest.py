"""Fixtures of the tests that send real packets: a lab in private namespaces, and the real daemon in its router."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from polywan.core.errors import MissingFeature
from polywan.kernel.cgroups import hierarchy, require
from polywan.kernel.nft.libnftables import Nftables
from polywan.kernel.requirements import has_flowtable
from polywan.lab import sandbox
from polywan.lab.daemon import DaemonProcess, Spawn, executed
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab, build
from support.fork_server import ForkServer
from support.netns import BuildLab, StartDaemon, WaitFor

T = TypeVar("T")
HERE = Path(__file__).parent
HINT = "run make test-netns"
_AF_PPPOX, _PX_PROTO_OE = 24, 0  # linux/socket.h, linux/if_pppox.h


def _link(kind: str) -> Callable[[], bool]:
    """Ask the kernel for a device of that kind, in a namespace of its own."""

    def probe() -> bool:
        spare = Namespace("feature")
        spare.create()
        try:
            return spare.run(["ip", "link", "add", "probe0", "type", *kind.split()], check=False).returncode == 0
        finally:
            spare.delete()

    return probe


def _qdisc(kind: str) -> Callable[[], bool]:
    def probe() -> bool:
        spare = Namespace("feature")
        spare.create()
        try:
            return spare.run(["tc", "qdisc", "add", "dev", "lo", "root", kind], check=False).returncode == 0
        finally:
            spare.delete()

    return probe


def _shaping() -> bool:
    """Ask for all that shaping needs, in a namespace of its own."""
    spare = Namespace("feature")
    spare.create()
    words = "tc filter add dev probe0 ingress matchall action mirred egress redirect dev probe0"
    try:
        made = spare.run(["ip", "link", "add", "probe0", "type", "ifb"], check=False).returncode == 0
        disciplines = ["root cake", "root fq_codel", "root prio", "root htb", "ingress"]
        found = [f"tc qdisc replace dev probe0 {one}".split() for one in disciplines]
        return made and all(spare.run(one, check=False).returncode == 0 for one in [*found, words.split()])
    finally:
        spare.delete()


def _esp() -> bool:
    """Ask for a security association, in a namespace of its own."""
    spare = Namespace("feature")
    spare.create()
    try:
        ends = "src 192.0.2.3 dst 192.0.2.4 proto esp spi 256 mode tunnel"
        cipher = ["aead", "rfc4106(gcm(aes))", "0x" + "11" * 20, "128"]
        return spare.run(["ip", "xfrm", "state", "add", *ends.split(), *cipher], check=False).returncode == 0
    finally:
        spare.delete()


def _flowtable() -> bool:
    """Ask for one, in a namespace of its own."""
    spare = Namespace("feature")
    spare.create()
    try:
        with spare.entered(), closing(Nftables()) as nft:
            return has_flowtable(nft)
    finally:
        spare.delete()


def _control_groups() -> bool:
    """Ask for one in a rule, make one and remove it again."""
    try:
        require()
        spare = hierarchy().root / f"polywan-feature-{os.getpid()}"
        spare.mkdir()
        spare.rmdir()
    except (MissingFeature, OSError):
        return False
    return True


def _tool(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) for name in names)


def _ppp() -> bool:
    """Ask for the kernel's part: pppd opens the one, and makes the socket."""
    try:
        os.close(os.open("/dev/ppp", os.O_RDWR))
        socket.socket(_AF_PPPOX, socket.SOCK_STREAM, _PX_PROTO_OE).close()
    except OSError:
        return False
    return True


def _tap() -> bool:
    """Ask for the device that makes them."""
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


FEATURES: dict[str, tuple[Callable[[], bool], str]] = {
    "dummy": (_link("dummy"), "this kernel has no dummy devices"),
    "vrf": (_link("vrf table 10"), "this kernel has no VRF"),
    "wireguard": (_link("wireguard"), "this kernel has no WireGuard"),
    "tap": (_tap, "this kernel has no tap devices that this user can make (CONFIG_TUN)"),
    "ethtool": (_tool("ethtool"), "ethtool is absent (package ethtool)"),
    "gre": (_link("gre local 192.0.2.1 remote 192.0.2.2"), "this kernel has no GRE tunnels"),
    "esp": (_esp, "this kernel has no ESP (CONFIG_INET_ESP), so no IPsec"),
    "bond": (_link("bond"), "this kernel has no bonds"),
    "bridge": (_link("bridge"), "this kernel has no bridges"),
    "bridge netfilter": (
        lambda: Path("/proc/sys/net/bridge").is_dir(),
        "this kernel has no bridge netfilter (CONFIG_BRIDGE_NETFILTER)",
    ),
    "cgroup2": (_control_groups, "kernel lacks control groups (version 2) that rules and this user can use"),
    "flowtable": (_flowtable, "this kernel has no flowtable (CONFIG_NFT_FLOW_OFFLOAD)"),
    "netem": (_qdisc("netem"), "this kernel has no netem"),
    "fq_codel": (_qdisc("fq_codel"), "this kernel has no fq_codel"),
    "ppp": (_ppp, "this kernel has no PPP over Ethernet (CONFIG_PPPOE) that this user can use"),
    "pppd": (_tool("pppd"), "pppd is absent (package ppp)"),
    "pppoe-server": (_tool("pppoe-server", "pppoe"), "pppoe-server is absent (package pppoe)"),
    "shaping": (_shaping, "kernel lacks cake, fq_codel, prio, htb, ifb, matchall or mirred"),
    "no cake": (lambda: not _qdisc("cake")(), "this kernel has cake"),
    "ping": (_tool("ping"), "ping is absent (package iputils-ping)"),
    "conntrack": (_tool("conntrack"), "conntrack is absent (package conntrack)"),
    "prometheus": (_tool("prometheus"), "prometheus is absent (package prometheus)"),
    "node_exporter": (
        _tool("prometheus-node-exporter"),
        "prometheus-node-exporter is absent (package prometheus-node-exporter)",
    ),
    "tcpdump": (_tool("tcpdump"), "tcpdump is absent (package tcpdump)"),
    "iptables-nft": (_tool("iptables-nft"), "iptables-nft is absent (package iptables)"),
    "dnsmasq": (_tool("dnsmasq"), "dnsmasq is absent (package dnsmasq-base)"),
    "udhcpc": (_tool("udhcpc"), "udhcpc is absent (package udhcpc)"),
    "dhclient": (_tool("dhclient"), "dhclient is absent (package isc-dhcp-client)"),
    "dhcpcd": (_tool("dhcpcd"), "dhcpcd is absent (package dhcpcd-base)"),
    "uml": (
        lambda: "User Mode Linux" in Path("/proc/cpuinfo").read_text("ascii"),
        "this kernel has no settings that a test may change: it is the machine's own",
    ),
    "root": (
        lambda: Path("/proc/self/uid_map").read_text("ascii").split() == ["0", "0", "4294967295"],
        "this kernel has no other users in namespaces of an ordinary one (run as root)",
    ),
    "sshd": (lambda: Path("/usr/sbin/sshd").exists(), "sshd is absent (package openssh-server)"),
    "ifupdown": (_tool("ifup"), "ifup is absent (package ifupdown)"),
    "NetworkManager": (
        _tool("NetworkManager", "dbus-daemon"),
        "NetworkManager is absent (package network-manager)",
    ),
    "systemd-networkd": (
        lambda: Path("/lib/systemd/systemd-networkd").exists(),
        "systemd-networkd is absent (package systemd)",
    ),
}
"""What `@pytest.mark.needs(NAME)` may ask for: how to find out, and why a test is skipped without it."""

_found: dict[str, bool] = {}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*names): kernel features or tools of FEATURES without which it is skipped"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.netns)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not item.path.is_relative_to(HERE):
        return
    if reason := sandbox.not_private():
        pytest.skip(f"{reason}: {HINT}")
    if missing := sandbox.missing_tools():
        pytest.skip(f"missing: {', '.join(missing)}")
    sandbox.prepare()
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            probe, reason = FEATURES[name]
            if name not in _found:
                _found[name] = probe()
            if not _found[name]:
                pytest.skip(reason)


@pytest.fixture
def lab_of() -> Iterator[BuildLab]:
    standing: list[Lab] = []

    def make(uplinks: int = 3, **options: object) -> Lab:
        lab = build(uplinks, **options)  # type: ignore[arg-type]  # passed on as they came
        standing.append(lab)
        return lab

    yield make
    for lab in standing:
        lab.close()


@pytest.fixture
def lab(lab_of: BuildLab) -> Lab:
    """Three uplinks, both families."""
    return lab_of(3)


_numbers = count(1)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def spawn(request: pytest.FixtureRequest) -> Spawn:
    """How a daemon is started for the first time: forked, but where time is measured."""
    if request.node.get_closest_marker("alone"):
        return executed
    server: ForkServer = request.getfixturevalue("fork_server")
    return server.start


@pytest.fixture
def start_daemon(request: pytest.FixtureRequest, spawn: Spawn) -> Iterator[StartDaemon]:
    started: list[tuple[DaemonProcess, bool]] = []

    def start(lab: Lab, toml: str, *, namespace: Namespace | None = None, may_complain: bool = False) -> DaemonProcess:
        # Below /run, which is ours alone here: a socket's path has room for 107 bytes only (unix(7)).
        daemon = DaemonProcess(namespace or lab.router, toml, Path("/run") / f"polywan-{next(_numbers)}", spawn)
        started.append((daemon, may_complain))
        daemon.start()
        daemon.spawn = executed
        return daemon

    yield start
    for daemon, _ in started:
        daemon.stop()
    logs = ["\n".join(line.text for line in daemon.log) for daemon, _ in started]
    for number, text in enumerate(logs):
        request.node.add_report_section("teardown", f"log of daemon {number + 1}", text)
    troubles = [line for daemon, may_complain in started if not may_complain for line in daemon.troubles]
    if troubles:
        pytest.fail("the daemon complained:\n" + "\n".join(troubles))


@pytest.fixture
def wait_for() -> WaitFor:
    def wait(predicate: Callable[[], T], timeout: float = 5.0, what: str = "") -> T:
        deadline = time.monotonic() + timeout
        while not (value := predicate()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout:g} s: {what or predicate}")
            # Nothing can be awaited across processes and network namespaces.
            time.sleep(0.005)
        return value

    return wait
