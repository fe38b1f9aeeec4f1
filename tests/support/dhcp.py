"""Real DHCP and router advertisements: dnsmasq(8) at a provider, and the clients that distributions bring."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.recipe import PROVIDER_TABLE

RENEWAL: Final = 3
"""Seconds until a client renews its lease; dnsmasq grants none of less than two minutes."""

_ETC: Final = Path("/run/etc")


class Provider:
    """dnsmasq on the cable of an uplink; what it hands out changes with `serve`."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.namespace: Namespace = lab.provider(number)
        self._leases = Path(f"/run/leases{number}")
        self._log = Path(f"/run/dnsmasq{number}.log")
        self._log.unlink(missing_ok=True)
        self._leases.unlink(missing_ok=True)
        self._process: subprocess.Popen[str] | None = None
        # A client that has no address yet is no thief of one.
        self.namespace.nft(f"insert rule {PROVIDER_TABLE} arriving udp sport 68 udp dport 67 accept\n")

    def serve(self, *words: str) -> None:
        """Start it with these options, in the place of the one before."""
        self.close()
        common = (
            "--keep-in-foreground --conf-file=/dev/null --port=0 --interface=wan --pid-file= --user= --group= --no-ping"
        )
        files = f"--log-dhcp --log-facility={self._log} --dhcp-leasefile={self._leases}"
        self._process = self.namespace.start(["dnsmasq", *common.split(), *files.split(), *words])

    @property
    def granted(self) -> int:
        """How often it has granted or renewed a lease."""
        return self._log.read_text("utf-8").count("DHCPACK(wan)") if self._log.exists() else 0

    def lease(self, host: str, gateway: str) -> None:
        """Hand out one address with one router, and refuse any other."""
        self._leases.unlink(missing_ok=True)
        self.serve(
            "--dhcp-authoritative",
            f"--dhcp-range={host},{host},255.255.255.0,2m",
            f"--dhcp-option=3,{gateway}",
            f"--dhcp-option-force=58,{RENEWAL}",
            f"--dhcp-option-force=59,{RENEWAL * 2}",
        )

    def advertise(self, device: str = "wan") -> None:
        """Advertise the prefix of every address of a device, without DHCP."""
        self.serve("--enable-ra", f"--interface={device}", f"--dhcp-range=::,constructor:{device},ra-only,64,10m")

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


CLIENTS: Final = {
    "udhcpc": "udhcpc -f -i {device} -s /etc/udhcpc/default.script -t 5 -T 1 -A 1",
    "dhclient": "dhclient -4 -d -lf /run/dhclient.{device}.leases -pf /run/dhclient.{device}.pid {device}",
    "dhcpcd": "dhcpcd -4 -B -d --noarp --nohook resolv.conf -f /dev/null {device}",
}


@contextmanager
def client(namespace: Namespace, kind: str, device: str) -> Iterator[subprocess.Popen[str]]:
    """Run a DHCP client on a device, its output in a file below /run."""
    own_etc()
    with Path(f"/run/{kind}-{device}.log").open("w", encoding="utf-8") as log:
        process = namespace.start(CLIENTS[kind].format(device=device).split(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def renew(process: subprocess.Popen[str], kind: str) -> None:
    """Ask a client to renew its lease now, where it can be asked; the others do so in `RENEWAL` seconds."""
    if kind == "udhcpc":
        process.send_signal(signal.SIGUSR1)


def own_etc() -> None:
    """Give this sandbox copies of what clients write below /etc and /var/lib: a resolver, leases."""
    if _ETC.exists():
        return
    with suppress(shutil.Error):  # Not everything may be read.
        shutil.copytree("/etc", _ETC, symlinks=True, ignore_dangling_symlinks=True)
    resolver = _ETC / "resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.write_text("", "utf-8")
    subprocess.run(["mount", "--bind", str(_ETC), "/etc"], check=True)
    for place in ("/var/lib/dhcp", "/var/lib/dhcpcd"):
        if Path(place).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "dhcp", place], check=True)
