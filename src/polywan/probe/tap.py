"""Echo replies as they arrive, before connection tracking: a full table drops those of probes that have no entry.

Each packet that arrives by the device passes the filter while a tap is open, so it is opened only in need.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from polywan.core.net import Family
from polywan.probe.bound import link_socket

_ETHERTYPES: Final = {Family.V4: 0x0800, Family.V6: 0x86DD}
_IPV6_HEADER: Final = 40
_BURST: Final = 64
_LARGEST: Final = 256

# linux/bpf_common.h, and SO_ATTACH_FILTER of socket(7).
_LOAD_BYTE, _LOAD_HALF, _NEXT_BYTE, _NEXT_HALF, _INDEX_HEADER = 0x30, 0x28, 0x50, 0x48, 0xB1
_EQUAL, _RETURN = 0x15, 0x06
_ATTACH_FILTER: Final = 26
_STEP: Final = struct.Struct("=HBBI")
_FPROG: Final = struct.Struct("@HP")


class Tap:
    """Hears the replies with one identifier that arrive by one device.

    Args:
        loop: the thread's own.
        interface: the device.
        family: of the replies.
        identifier: theirs.
        take: is given each message, as a raw socket would have it, and the sender's address, packed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interface: str,
        family: Family,
        identifier: int,
        take: Callable[[bytes, bytes], None],
    ) -> None:
        """Open.

        Raises:
            SocketDeniedError, OSError, ValueError: as `link_socket`.
        """
        self._loop = loop
        self._family = family
        self._take = take
        self._sock = link_socket(_ETHERTYPES[family], interface, 0)
        try:
            _attach(self._sock, replies(family, identifier))
            loop.add_reader(self._sock.fileno(), self._read)
        except BaseException:
            self._sock.close()
            raise

    def close(self) -> None:
        """Release the socket; a second time does nothing."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                packet = self._sock.recv(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The device is down or gone.
                self.close()
                return
            with suppress(IndexError):
                if self._family is Family.V4:
                    self._take(packet, packet[12:16])
                else:
                    self._take(packet[_IPV6_HEADER:], packet[8:24])


def replies(family: Family, identifier: int) -> array[int]:
    """Return a socket filter (bpf(4)) that lets echo replies with that identifier pass."""
    tests: list[tuple[int, int]]
    if family is Family.V4:
        tests = [(_LOAD_BYTE, 9), (_EQUAL, 1), (_INDEX_HEADER, 0), (_NEXT_BYTE, 0), (_EQUAL, 0)]
        tests += [(_NEXT_HALF, 4), (_EQUAL, identifier)]
    else:
        tests = [(_LOAD_BYTE, 6), (_EQUAL, 58), (_LOAD_BYTE, 40), (_EQUAL, 129), (_LOAD_HALF, 44), (_EQUAL, identifier)]
    return _assembled(tests)


def hear_only(sock: socket.socket, family: Family, identifier: int) -> None:
    """Have a raw socket receive echo replies with that identifier, and nothing else: others do not even wake us.

    A raw socket is given the replies to every program of the box, and whatever strangers send.

    Raises:
        OSError: the kernel refused.
    """
    _attach(sock, raw_replies(family, identifier))


def raw_replies(family: Family, identifier: int) -> array[int]:
    """Return `replies` for a raw socket: of IPv6 it has no header (raw(7), RFC 3542)."""
    if family is Family.V4:
        tests = [(_INDEX_HEADER, 0), (_NEXT_BYTE, 0), (_EQUAL, 0), (_NEXT_HALF, 4), (_EQUAL, identifier)]
    else:
        tests = [(_LOAD_BYTE, 0), (_EQUAL, 129), (_LOAD_HALF, 4), (_EQUAL, identifier)]
    return _assembled(tests)


def _attach(sock: socket.socket, program: array[int]) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, _FPROG.pack(len(program), program.buffer_info()[0]))


def _assembled(tests: list[tuple[int, int]]) -> array[int]:
    count = len(tests)
    steps = [
        _STEP.pack(code, 0, count - place if code == _EQUAL else 0, number)
        for place, (code, number) in enumerate(tests)
    ]
    return array("Q", b"".join([*steps, _STEP.pack(_RETURN, 0, 0, 0xFFFF_FFFF), _STEP.pack(_RETURN, 0, 0, 0)]))
