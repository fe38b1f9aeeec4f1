"""Network namespaces by name (ip-netns(8)), and sockets and processes made inside them."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from polywan.lab.sandbox import LabError

_HOME: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x4000_0000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named network namespace. Methods raise `LabError` when the kernel or a tool refuses."""

    name: str

    @property
    def path(self) -> Path:
        """Where ip-netns(8) keeps it."""
        return _HOME / self.name

    def create(self) -> None:
        """Make it; its loopback is up."""
        ip_batch([f"netns add {self.name}"])
        self.ip(["link set lo up"])

    def delete(self) -> None:
        """Remove its name; the kernel frees it with its last process and socket."""
        ip_batch([f"netns del {self.name}"])

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the current thread in, and back: sockets and processes made meanwhile belong to it.

        Never await inside: the event loop's other work would run in this namespace too.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns_path(self.path)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """Return a non-blocking socket of this namespace."""
        with self.entered():
            sock = socket.socket(family, kind)
        sock.settimeout(0)
        return sock

    def run(self, argv: Sequence[str], *, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end; `text` is its standard input.

        The process is started from a thread that has entered, which spares the mounts of ``ip netns exec``
        (refused in some containers); /sys still shows the network the lab was started from.
        """
        with self.entered():
            done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(argv)}: {done.stderr.strip() or done.returncode}")
        return done

    def start(
        self,
        argv: Sequence[str],
        *,
        stdout: int | IO[str] = subprocess.DEVNULL,
        stderr: int | IO[str] = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program in it that ends, whatever happens, with the calling thread (PR_SET_PDEATHSIG)."""
        with self.entered():
            return subprocess.Popen(
                [*_DIE_WITH_PARENT, *argv],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def ip(self, lines: Iterable[str]) -> None:
        """Carry out lines for ``ip -batch`` in one process; the first that fails raises."""
        ip_batch(lines, self.name)

    def nft(self, text: str) -> None:
        """Apply the text of an nft file in one transaction."""
        self.run(["nft", "-f", "-"], text=text)

    def counters(self, table: str) -> dict[str, int]:
        """Return packets by name of the counters of an nft table, given as "family name"."""
        family, name = table.split()
        listing = json.loads(self.run(["nft", "-j", "list", "counters", "table", family, name]).stdout)
        found = [item["counter"] for item in listing["nftables"] if "counter" in item]
        return {counter["name"]: counter["packets"] for counter in found}

    def sysctl(self, settings: Mapping[str, str | int]) -> None:
        """Set values below /proc/sys/net: ``ipv4/ip_forward``; that tree shows the thread's own namespace."""
        with self.entered():
            for path, value in settings.items():
                Path("/proc/sys/net", path).write_text(f"{value}\n", encoding="ascii")

    def read_sysctl(self, path: str) -> str:
        """Return a value below /proc/sys/net."""
        with self.entered():
            return Path("/proc/sys/net", path).read_text(encoding="ascii").strip()

    def set_link(self, interface: str, *, up: bool) -> float:
        """Bring a link up or down (netdevice(7)) and return the monotonic time when it was done."""
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sh22x", interface.encode(), 0)
            try:
                name, flags = struct.unpack("16sh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
                wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
                fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", name, wanted))
            except OSError as error:
                raise LabError(f"{self.name}: {interface}: {error.strerror}") from error
            return time.monotonic()

    def carrier(self, interface: str) -> bool:
        """Tell whether the link is operational (RFC 2863): up, with a carrier, and the kernel has acted on it."""
        shown = json.loads(self.run(["ip", "-json", "link", "show", "dev", interface]).stdout)
        return bool(shown[0]["operstate"] == "UP")


def ip_batch(lines: Iterable[str], namespace: str | None = None) -> None:
    """Carry out lines of ip(8) in one process, in a namespace if one is named.

    Raises:
        LabError: a line was refused; the text names it.
    """
    listed = list(lines)
    where = ["-netns", namespace] if namespace else []
    argv = ["ip", *where, "-batch", "-"]
    done = subprocess.run(argv, input="\n".join(listed) + "\n", capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    # ip(8) ends its message with "Command failed -:LINE".
    last = done.stderr.strip().rpartition(":")[2]
    line = listed[int(last) - 1] if last.isdigit() and int(last) <= len(listed) else "?"
    raise LabError(f"{namespace or 'lab'}: ip {line}: {done.stderr.strip()}")


def _setns_path(path: Path) -> None:
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"no namespace {path.name}: {error.strerror}") from error
    try:
        _setns(there)
    finally:
        os.close(there)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise LabError(f"cannot enter a namespace: {os.strerror(ctypes.get_errno())}")
