"""Real PPPoE: access concentrators in the lab's providers, and sessions that the router dials with pppd(8)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from polywan.core.net import Family, IPAddress
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS

VPN: Final = "10.8.8.0/24"
VPN_ROUTER: Final = "10.8.8.1"
VPN_CLIENT: Final = "10.8.8.2"

UP_SCRIPT: Final = Path("/etc/ppp/ip-up")
"""What pppd runs when a session has its address; absent unless a test writes it."""

_HOME: Final = UP_SCRIPT.parent
_FIRST_HOST: Final = 10
_DIALLED: Final = 30.0
"""Seconds within which every session has its address, on a slow machine."""

# A concentrator's pppd often misses the first request; it is repeated after 3 s otherwise.
_IMPATIENT: Final = "lcp-restart 1 ipcp-restart 1 chap-restart 1"
_SERVER: Final = "auth require-chap nomppe lcp-echo-interval 1 lcp-echo-failure 3 " + _IMPATIENT
_CLIENT: Final = "noauth noipdefault nodetach lcp-echo-interval 1 lcp-echo-failure 2 maxfail 0 holdoff 1 " + _IMPATIENT


class Pppoe:
    """Sessions over cables of a lab; session N is the device ppp(N-1) on the device wanN.

    Attributes:
        lab: with IPv4 only; its uplinks that are not dialled keep their addresses.
        numbers: of the uplinks that are dialled.
        options: of pppd(8), for every session.
    """

    def __init__(self, lab: Lab, numbers: Collection[int], options: Sequence[str]) -> None:
        self.lab = lab
        self.numbers = tuple(numbers)
        self.options = tuple(options)
        self._hosts = dict.fromkeys(numbers, _FIRST_HOST)
        self._servers: dict[str, subprocess.Popen[str]] = {}
        self._clients: dict[int, subprocess.Popen[str]] = {}

    def serve(self) -> None:
        """Start the concentrators: one for each provider; the account says which address a session gets."""
        self._write_accounts()
        for number in self.numbers:
            provider = self.lab.topology.uplink(number).provider
            if provider not in self._servers:
                local = "100.64.0.1" if self.lab.topology.trunk else self._address(number, 1)
                words = f"-F -k -I wan -L {local} -R 100.127.0.10 -N 64 -C {provider} -O {_HOME}/server"
                self._servers[provider] = self.lab.provider(number).start(["pppoe-server", *words.split()])

    def dial(self, *numbers: int) -> None:
        """Start a pppd for each of these sessions."""
        for number in numbers:
            own = f"plugin rp-pppoe.so nic-wan{number} unit {number - 1} user u{number} ipparam isp{number}"
            with self._log(number).open("a", encoding="utf-8") as log:
                argv = ["pppd", *own.split(), *_CLIENT.split(), *self.options]
                self._clients[number] = self.lab.router.start(argv, stdout=log, stderr=log)

    def hang_up(self, *numbers: int) -> None:
        """End the pppd of these sessions, as `poff` does, and wait for that."""
        for number in numbers:
            self._clients[number].terminate()
        for number in numbers:
            self._clients.pop(number).wait(_DIALLED)

    def lose(self, number: int) -> None:
        """End a session at the concentrator; the pppd of the router goes on, and dials again with `persist`."""
        server = self._servers[self.lab.topology.uplink(number).provider]
        for pid in _children(server.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def move(self, number: int) -> None:
        """Let a session have another address when it dials again."""
        self._hosts[number] += 1
        self._write_accounts()

    def address(self, number: int) -> IPv4Address | None:
        """Return the address of a session; None while it has none."""
        shown = self.lab.router.run(["ip", "-4", "-o", "address", "show", "dev", device(number)], check=False)
        words = shown.stdout.split()
        return IPv4Address(words[words.index("inet") + 1].partition("/")[0]) if "inet" in words else None

    def index(self, number: int) -> int | None:
        """Return the index of a session's device; None while there is none."""
        shown = self.lab.router.run(["ip", "-o", "link", "show", "dev", device(number)], check=False)
        return int(shown.stdout.partition(":")[0]) if shown.returncode == 0 else None

    def wait(self, *numbers: int) -> None:
        """Wait until these sessions have their addresses."""
        deadline = time.monotonic() + _DIALLED
        for number in numbers:
            while self.address(number) is None:
                assert time.monotonic() < deadline, self._log(number).read_text("utf-8")
                # Nothing can be awaited across processes and network namespaces.
                time.sleep(0.02)

    def wait_for_another(self, number: int, index: int | None) -> None:
        """Wait until a session has its address on another device than the one with this index."""
        deadline = time.monotonic() + _DIALLED
        while self.index(number) in (None, index):
            assert time.monotonic() < deadline, self._log(number).read_text("utf-8")
            # Nothing can be awaited across processes and network namespaces.
            time.sleep(0.02)
        self.wait(number)

    def close(self) -> None:
        """End everything that was started, sessions first: a concentrator takes its own along."""
        for process in (*self._clients.values(), *self._servers.values()):
            process.terminate()
        for process in (*self._clients.values(), *self._servers.values()):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _address(self, number: int, host: int) -> IPAddress:
        return self.lab.topology.uplink(number).addresses[Family.V4].own.network.network_address + host

    def _write_accounts(self) -> None:
        _write("chap-secrets", "".join(f"u{n} * pw{n} {self._address(n, host)}\n" for n, host in self._hosts.items()))

    @staticmethod
    def _log(number: int) -> Path:
        return Path(f"/run/pppd{number}.log")


def device(number: int) -> str:
    """Return the device of a session."""
    return f"ppp{number - 1}"


@contextmanager
def dialled(lab: Lab, numbers: Collection[int], options: Sequence[str] = ("nodefaultroute",)) -> Iterator[Pppoe]:
    """Make the cables of these uplinks PPPoE, put a VPN's clients behind the router, and dial every session."""
    if not (_HOME / "server").exists():
        # This sandbox has its own: accounts, and no scripts.
        subprocess.run(["mount", "-t", "tmpfs", "ppp", str(_HOME)], check=True)
    UP_SCRIPT.unlink(missing_ok=True)
    _write("options", "")
    _write("server", _SERVER)
    for number in numbers:
        lab.router.ip([f"address flush dev wan{number}", f"link set dev wan{number} up"])
    for provider in {lab.topology.uplink(number).provider: lab.provider(number) for number in numbers}.values():
        provider.ip(["address flush dev wan"])
    _put_vpn_behind(lab)
    sessions = Pppoe(lab, numbers, options)
    try:
        sessions.serve()
        sessions.dial(*numbers)
        sessions.wait(*numbers)
        yield sessions
    finally:
        sessions.close()


def configuration(numbers: Iterable[int], rest: str = "") -> str:
    """Return a file for these sessions: equal shares, the lab's targets, no hold-down worth waiting for."""
    targets = ", ".join(f'"{address}"' for address in SERVERS[Family.V4])
    health = f'[health]\ntargets = [{targets}]\nhold_down = "1s"\nslow_start = "0s"\n'
    uplinks = "".join(f'[uplinks.isp{number}]\ninterface = "{device(number)}"\n' for number in numbers)
    return f"[global]\nforwarding = true\n{health}{uplinks}{rest}"


def _put_vpn_behind(lab: Lab) -> None:
    renamed = ["link set dev lan0 down", "link set dev lan0 name tun0", "link set dev tun0 up"]
    lab.router.ip([*renamed, "address flush dev tun0", f"address add {VPN_ROUTER}/24 dev tun0"])
    away = ["address flush dev eth0", f"address add {VPN_CLIENT}/24 dev eth0"]
    lab.client.ip([*away, f"route replace default via {VPN_ROUTER}"])


def _write(name: str, text: str) -> None:
    file = _HOME / name
    file.write_text(text, "utf-8")
    file.chmod(0o600)


def _children(pid: int) -> list[int]:
    """Return the children of a process; /proc/PID/task/TID/children is not in every kernel."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold anything.
            if int(entry.read_text("utf-8").rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
    return found
