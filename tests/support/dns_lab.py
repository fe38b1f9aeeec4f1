"""A lab whose names are answered by a small DNS server of the test's."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polywan.core.net import Family
from polywan.lab.network import Lab
from polywan.lab.topology import SERVERS
from support.dns_server import DnsServer, Zone

RESOLV_CONF = Path("/etc/resolv.conf")


@contextmanager
def resolving(lab: Lab, names: dict[str, Zone]) -> Iterator[DnsServer]:
    """Answer on a server's port 53, and let everything in this sandbox ask there."""
    address = SERVERS[Family.V4][0]
    sock = lab.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((str(address), 53))
    # A link into /run leads nowhere here.
    target = RESOLV_CONF.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    ours = Path("/run/resolv.conf.test")
    ours.write_text(f"nameserver {address}\n")
    subprocess.run(["mount", "--bind", str(ours), str(target)], check=True)
    try:
        with DnsServer(sock, names) as server:
            yield server
    finally:
        subprocess.run(["umount", str(target)], check=True)
