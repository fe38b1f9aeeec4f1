"""Handshakes as probes: the target's TCP answers, whether a service listens or not."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from polywan.core.net import IPAddress, family_of
from polywan.probe.bound import ABORT, RECVERR, bound_socket, endpoint


class Handshake:
    """One connection attempt; it ends by an answer, a hard failure or `cancel`, and leaves no socket behind.

    An answer is a completed handshake, or a reset from the target. A router's ICMP "port unreachable" yields
    ECONNREFUSED too, but proves only the path to that router: it is a failure.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        interface: str,
        mark: int,
        target: IPAddress,
        port: int,
        on_answer: Callable[[], None],
        on_failure: Callable[[], None],
    ) -> None:
        """Send the first packet; one of the two functions is called later, from the loop and once.

        Raises:
            OSError: it could not leave, or as `bound_socket`.
        """
        family = family_of(target)
        self._loop = loop
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._sock = bound_socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, interface, mark)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self._sock.setsockopt(*RECVERR[family], 1)
            self._refused = not self._connect(target, port)
            loop.add_writer(self._sock.fileno(), self._settle)
        except BaseException:
            self._sock.close()
            raise

    def cancel(self) -> None:
        """Give up; nothing is reported any more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def _connect(self, target: IPAddress, port: int) -> bool:
        """Return False when a near target has refused already; connect() has then cleared the error."""
        try:
            self._sock.connect(endpoint(target, port))
        except BlockingIOError:
            return True
        except ConnectionRefusedError:
            return False
        return True

    def _settle(self) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        refused = self._refused or code == errno.ECONNREFUSED
        answered = not _told_by_icmp(self._sock) if refused else code == 0
        self.cancel()
        (self._on_answer if answered else self._on_failure)()


def _told_by_icmp(sock: socket.socket) -> bool:
    """Tell whether an ICMP message caused the error: those wait in the error queue, a reset does not."""
    try:
        sock.recvmsg(1, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return False
    return True
