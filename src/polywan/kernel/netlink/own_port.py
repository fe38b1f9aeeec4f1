"""Which netlink ports are this process's own."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from polywan.kernel.netlink.socket import NETFILTER


def own_netfilter_port(port: int) -> bool:
    """Tell whether one of this process's nfnetlink sockets has the port id.

    libnftables keeps its socket to itself, and the pid that the kernel reports is a thread's, in the
    outermost pid namespace: only the port id in the message's header always tells.
    """
    with suppress(OSError):
        return any(_netfilter_port(int(fd)) == port for fd in os.listdir("/proc/self/fd"))
    return False


def _netfilter_port(fd: int) -> int | None:
    try:
        if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            return None
        copy = socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    with copy:
        if copy.family != socket.AF_NETLINK or copy.proto != NETFILTER:
            return None
        return int(copy.getsockname()[0])
