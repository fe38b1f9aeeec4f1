"""What a daemon says does nothing to the terminal of whoever asks it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from polywan import files
from polywan.client import Client
from polywan.core.errors import ControlError


def answering(directory: Path, status: str, document: object) -> threading.Thread:
    """Answer one request with a document."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(directory / files.SOCKET))
    server.listen(1)

    def answer() -> None:
        with server, server.accept()[0] as connection:
            connection.recv(65536)
            body = json.dumps(document).encode()
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_texts_of_a_document_order_no_terminal_about(tmp_path: Path) -> None:
    thread = answering(tmp_path, "200 OK", {"uplinks": [{"reason": "a\x1b[2Jb", "na\x07me": 3}], "text": "x\n\ty"})
    document = Client(tmp_path).status()
    thread.join()
    assert document == {"uplinks": [{"reason": "a\\x1b[2Jb", "na\\x07me": 3}], "text": "x\n\ty"}


def test_neither_do_those_of_a_refusal(tmp_path: Path) -> None:
    thread = answering(tmp_path, "409 Conflict", {"error": "no\x1b]0;owned\x07"})
    with pytest.raises(ControlError, match=r"no\\x1b]0;owned\\x07"):
        Client(tmp_path).status()
    thread.join()


def test_a_client_waits_while_others_fill_the_queue_of_the_socket(tmp_path: Path) -> None:
    path = tmp_path / files.SOCKET
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))
        with pytest.raises(ControlError, match="too many other clients are waiting"):
            Client(tmp_path, timeout=0.1).status()

        def answer() -> None:
            server.accept()[0].close()
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        thread = threading.Timer(0.1, answer)
        thread.start()
        assert Client(tmp_path).status() == {}
        thread.join()
