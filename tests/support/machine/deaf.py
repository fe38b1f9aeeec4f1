"""A kernel that answers a process no more: its netlink sockets get a filter that lets nothing in."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from contextlib import closing
from typing import Final

_PIDFD_GETFD: Final = 438
_SO_ATTACH_FILTER: Final = 26
_SOON: Final = struct.pack("@ll", 0, 200_000)
_RETURN_NOTHING: Final = struct.pack("HBBI", 0x06, 0, 0, 0)

_libc: Final = ctypes.CDLL(None, use_errno=True)


def stop_answering(pid: int) -> None:
    """Have every netlink socket that the process has open receive nothing from now on (pidfd_getfd(2)).

    Whoever waits for an answer learns of it after 0.2 s.
    """
    program = ctypes.create_string_buffer(_RETURN_NOTHING, len(_RETURN_NOTHING))
    described = struct.pack("HL", 1, ctypes.addressof(program))
    process = os.pidfd_open(pid)
    try:
        for number in map(int, os.listdir(f"/proc/{pid}/fd")):
            if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                continue
            with closing(_borrowed(process, number)) as sock:
                if sock.family == socket.AF_NETLINK:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SOON)
                    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    finally:
        os.close(process)


def _borrowed(process: int, number: int) -> socket.socket:
    descriptor = _libc.syscall(_PIDFD_GETFD, process, number, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"descriptor {number} cannot be borrowed")
    return socket.socket(fileno=descriptor)
