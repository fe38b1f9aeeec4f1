"""What a daemon says does nothing to the terminal of whoever asks it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from polywan import files
from polywan.api.codec import encode
from polywan.client import Client
from polywan.core.errors import ControlError
from support.documents import status

EMPTY = status()


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
    thread = answering(tmp_path, "200 OK", {**encode(status()), "warnings": ["a\x1b[2Jb", "x\n\ty"]})
    document = Client(tmp_path).status()
    thread.join()
    assert document.warnings == ("a\\x1b[2Jb", "x\n\ty")


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
                body = json.dumps(encode(EMPTY)).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)

        thread = threading.Timer(0.1, answer)
        thread.start()
        assert Client(tmp_path).status() == EMPTY
        thread.join()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "expected an object, got a list"),
        ({**encode(EMPTY), "uplinks": [3]}, r"uplinks\[0\]: expected an object, got 3"),
        ({**encode(EMPTY), "ready": "\x1b[2J"}, r"ready: expected true or false, got '\\\\x1b\[2J'"),
    ],
)
def test_an_answer_that_is_no_such_document_is_refused_with_its_place(
    tmp_path: Path, document: object, text: str
) -> None:
    thread = answering(tmp_path, "200 OK", document)
    with pytest.raises(ControlError, match=rf"the daemon's answer makes no sense: {text}; ") as caught:
        Client(tmp_path).status()
    thread.join()
    assert caught.value.status == 502


def test_what_a_newer_daemon_adds_is_passed_over(tmp_path: Path) -> None:
    thread = answering(tmp_path, "200 OK", {**encode(EMPTY), "moon": {"phase": "full"}})
    assert Client(tmp_path).status() == EMPTY
    thread.join()
