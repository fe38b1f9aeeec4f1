"""Programs that manage an uplink's device, as distributions run them: each gives it an address and a default route."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from polywan.lab.namespaces import Namespace

ADDRESS: Final = "100.64.1.50"
ROUTER: Final = "100.64.1.1"
METRIC: Final = 101

_SET_UP: Final = 30.0
"""Seconds within which a program has set up wan1."""

_RUN: Final = Path("/run")
# These programs want the devices of their own network in /sys; where it can be written, they wait for udev. What they
# keep, and the name of the host, are not this machine's.
_PRIVATELY: Final = """
mount -t sysfs sysfs /sys && mount -o remount,ro /sys || exit
[ ! -d /var/lib/NetworkManager ] || mount -t tmpfs kept /var/lib/NetworkManager || exit
exec "$@"
"""

_BUS: Final = """<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"""

_NETWORKD: Final = f"""[Match]
Name=wan1
[Network]
LinkLocalAddressing=no
IPv6AcceptRA=no
Address={ADDRESS}/24
[Route]
Gateway={ROUTER}
Metric={METRIC}
"""

_NETWORK_MANAGER: Final = """[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
hostname-mode=none
no-auto-default=*
auth-polkit=false
[keyfile]
path=/run/connections
unmanaged-devices=except:interface-name:wan1
"""

_CONNECTION: Final = f"""[connection]
id=wan1
uuid=6b0c4c3e-0000-4000-8000-000000000001
type=ethernet
interface-name=wan1
[ipv4]
method=manual
address1={ADDRESS}/24,{ROUTER}
route-metric={METRIC}
[ipv6]
method=disabled
"""

_INTERFACES: Final = f"""iface wan1 inet static
    address {ADDRESS}/24
    gateway {ROUTER}
    metric {METRIC}
"""


class Manager(Protocol):
    """One of them. `start` returns once wan1 is set up; `stop` leaves what the program leaves."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class _Service:
    """A program that goes on running.

    Args:
        namespace: whose devices it manages.
        name: of its log.
        argv: how it is called.
        done: tells whether it has set up wan1.
    """

    def __init__(self, namespace: Namespace, name: str, argv: list[str], done: Callable[[], bool]) -> None:
        self._namespace, self._log, self._done = namespace, _RUN / f"{name}.log", done
        self._argv = ["unshare", "--mount", "--uts", "sh", "-c", _PRIVATELY, "sh", *argv]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            self._process = self._namespace.start(self._argv, stdout=log, stderr=log)
        deadline = time.monotonic() + _SET_UP
        while not self._done():
            assert time.monotonic() < deadline, self._log.read_text("utf-8")
            # Nothing can be awaited across processes.
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


class _Ifupdown:
    """`ifup` and `ifdown`, without the scripts that the system has for its own links."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._file = _written("interfaces", _INTERFACES)
        _made("network")

    def start(self) -> None:
        self._do("ifup")

    def stop(self) -> None:
        self._do("ifdown")

    def _do(self, command: str) -> None:
        self._namespace.run([command, "--no-scripts", "--force", "--interfaces", str(self._file), "wan1"])


def _networkd(namespace: Namespace) -> Manager:
    _written("systemd/network/wan1.network", _NETWORKD)
    netif = _made("systemd/netif")
    owner = pwd.getpwnam("systemd-network")
    shutil.chown(netif, owner.pw_uid, owner.pw_gid)
    links = netif / "links"

    def configured() -> bool:
        return any("ADMIN_STATE=configured" in link.read_text("utf-8") for link in links.glob("*"))

    class Networkd(_Service):
        def start(self) -> None:
            # What the one before said of links outlives it.
            shutil.rmtree(links, ignore_errors=True)
            super().start()

    return Networkd(namespace, "networkd", ["/lib/systemd/systemd-networkd"], configured)


@contextmanager
def _bus(namespace: Namespace) -> Iterator[None]:
    _made("dbus")
    file = _written("dbus.conf", _BUS)
    bus = namespace.start(["dbus-daemon", f"--config-file={file}", "--nofork", "--nopidfile"])
    try:
        yield
    finally:
        bus.kill()
        bus.wait()


def _network_manager(namespace: Namespace) -> Manager:
    file = _written("NetworkManager.conf", _NETWORK_MANAGER)
    _written("connections/wan1.nmconnection", _CONNECTION)
    _made("NetworkManager")
    state = _made("nm-state")

    def connected() -> bool:
        asked = ["nmcli", "--get-values", "GENERAL.STATE", "device", "show", "wan1"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.startswith("100 ")

    nowhere = "--config-dir=/run/none --intern-config=/run/none.conf --no-daemon"
    return _Service(
        namespace,
        "NetworkManager",
        ["NetworkManager", f"--config={file}", f"--state-file={state}/state", *nowhere.split()],
        connected,
    )


_MADE: Final[dict[str, Callable[[Namespace], Manager]]] = {
    "ifupdown": _Ifupdown,
    "systemd-networkd": _networkd,
    "NetworkManager": _network_manager,
}
MANAGERS: Final = tuple(_MADE)


@contextmanager
def managed(namespace: Namespace, kind: str) -> Iterator[Manager]:
    """Let a program manage wan1 of this namespace."""
    manager = _MADE[kind](namespace)
    with _bus(namespace):
        manager.start()
        try:
            yield manager
        finally:
            manager.stop()


def _made(name: str) -> Path:
    place = _RUN / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def _written(name: str, text: str) -> Path:
    file = _RUN / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    file.chmod(0o644 if name.startswith("systemd") else 0o600)
    return file
