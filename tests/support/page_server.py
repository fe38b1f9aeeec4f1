"""A web server for tests that gives every client the same answer, on a socket that the test made."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from typing import Self


class PageServer:
    """Answers while the context lasts.

    Attributes:
        requests: what clients asked, in order.
    """

    def __init__(self, sock: socket.socket, answer: bytes | None, tls: ssl.SSLContext | None = None) -> None:
        """`answer` is sent as it is, whatever the request; None keeps clients waiting."""
        self.requests: list[bytes] = []
        self._sock = sock
        self._answer = answer
        self._tls = tls
        self._clients = ExitStack()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def __enter__(self) -> Self:
        self._sock.listen()
        self._sock.settimeout(None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread, which closing would not (socket(7)).
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()
        self._clients.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._sock.accept()
            except OSError:
                return
            with suppress(OSError):
                client.settimeout(5)
                self._talk(client)

    def _talk(self, plain: socket.socket) -> None:
        if self._tls is None:
            client = plain
        else:
            with plain:
                client = self._tls.wrap_socket(plain, server_side=True)
        self._clients.callback(client.close)
        self.requests.append(client.recv(4096))
        if self._answer is not None:
            client.sendall(self._answer)
            client.shutdown(socket.SHUT_WR)
