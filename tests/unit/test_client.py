"""What a daemon says does nothing to the terminal of whoever asks it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan import files
from polywan.api import calls
from polywan.api.calls import Call
from polywan.api.codec import encode
from polywan.api.document import Document
from polywan.api.flows import Flows
from polywan.api.requests import DrainUplink, Nothing, OfPolicy, WhomToForget, Words
from polywan.api.status import Status
from polywan.client import SENSELESS, Client, EventReader, PartReader, Parts
from polywan.core.errors import ControlError
from polywan.core.words import printable
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
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_texts_of_a_document_order_no_terminal_about(tmp_path: Path) -> None:
    thread = answering(tmp_path, "200 OK", {**encode(status()), "warnings": ["a\x1b[2Jb", "x\n\ty"]})
    document = Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()
    assert document.warnings == ("a\\x1b[2Jb", "x\n\ty")


@pytest.mark.parametrize("said", ["plain", "a\x7fb", "a\u202eb", "a\\b", 'a"b'])
def test_texts_are_escaped_however_they_were_sent(tmp_path: Path, said: str) -> None:
    sent = json.dumps({**encode(status()), "warnings": [said]}, ensure_ascii=False).encode()
    thread = answering(tmp_path, "200 OK", sent)
    document = Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()
    assert document.warnings == (printable(said),)


def test_neither_do_those_of_a_refusal(tmp_path: Path) -> None:
    thread = answering(tmp_path, "409 Conflict", {"error": "no\x1b]0;owned\x07"})
    with pytest.raises(ControlError, match=r"no\\x1b]0;owned\\x07"):
        Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()


def test_a_client_waits_while_others_fill_the_queue_of_the_socket(tmp_path: Path) -> None:
    path = tmp_path / files.SOCKET
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))
        with pytest.raises(ControlError, match="too many other clients are waiting"):
            Client(tmp_path, timeout=0.1).ask(calls.STATUS, Nothing())
        with pytest.raises(ControlError) as caught:
            Client(tmp_path, timeout=0.1).ask(calls.STATUS, Nothing())
        # There is a daemon: nobody may go on as if there was none.
        assert caught.value.status == 503

        def answer() -> None:
            server.accept()[0].close()
            with server.accept()[0] as connection:
                connection.recv(65536)
                body = json.dumps(encode(EMPTY)).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)

        thread = threading.Timer(0.1, answer)
        thread.start()
        assert Client(tmp_path).ask(calls.STATUS, Nothing()) == EMPTY
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
    with pytest.raises(ControlError, match=rf"cannot read the answer of the daemon \({text}\): ") as caught:
        Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()
    assert caught.value.status == 502


@pytest.mark.parametrize("document", [[], b"done"])
def test_what_was_carried_out_is_not_reported_as_if_it_was_not(tmp_path: Path, document: object) -> None:
    thread = answering(tmp_path, "200 OK", document)
    with pytest.raises(ControlError, match="the daemon has carried it out, but its answer cannot be read") as caught:
        Client(tmp_path).ask(calls.DOWN, Nothing())
    thread.join()
    assert caught.value.status == SENSELESS


@pytest.mark.parametrize(("said", "status"), [("404 Not Found", 404), ("405 Method Not Allowed", 405)])
def test_a_daemon_that_does_not_know_a_call_is_a_daemon(tmp_path: Path, said: str, status: int) -> None:
    thread = answering(tmp_path, said, said.encode())
    with pytest.raises(ControlError, match=f"the daemon refuses \\({said[4:]}\\)") as caught:
        Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()
    assert caught.value.status == status


def test_what_a_newer_daemon_adds_is_passed_over(tmp_path: Path) -> None:
    thread = answering(tmp_path, "200 OK", {**encode(EMPTY), "moon": {"phase": "full"}})
    assert Client(tmp_path).ask(calls.STATUS, Nothing()) == EMPTY
    thread.join()


@pytest.mark.parametrize("document", [[], {"error": 3}, {"error": "x", "problems": [{"where": "f"}]}])
def test_a_refusal_that_makes_no_sense_is_told_as_such(tmp_path: Path, document: object) -> None:
    thread = answering(tmp_path, "422 Unprocessable Entity", document)
    with pytest.raises(ControlError, match=r"cannot read the answer of the daemon \(") as caught:
        Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()
    assert caught.value.status == 502


def test_a_refusal_without_a_text_is_told_by_its_status(tmp_path: Path) -> None:
    thread = answering(tmp_path, "403 Forbidden", {})
    with pytest.raises(ControlError, match=r"^Forbidden$") as caught:
        Client(tmp_path).ask(calls.STATUS, Nothing())
    thread.join()
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("call", "asked", "line"),
    [
        (calls.STATUS, Nothing(), "GET /v1/status"),
        (calls.WHY, Words(words={"from": "-", "to": "[::1]:80"}), "GET /v1/why?from=-&to=%5B%3A%3A1%5D%3A80"),
        (calls.AFFINITY, OfPolicy(), "GET /v1/affinity"),
        (calls.AFFINITY, OfPolicy(policy="a b"), "GET /v1/affinity?policy=a+b"),
        (calls.CLEAR_AFFINITY, WhomToForget(all="true"), "POST /v1/affinity/clear?all=true"),
        (calls.DRAIN, DrainUplink(name="a/b?", deadline="5m"), "POST /v1/uplinks/a%2Fb%3F/drain?deadline=5m"),
        (calls.DRAIN, DrainUplink(name="x"), "POST /v1/uplinks/x/drain"),
    ],
)
def test_a_request_is_what_the_table_of_calls_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call[Any, Any], asked: Document, line: str
) -> None:
    sent: list[str] = []

    def send(_: Client, method: str, path: str, body: str | None) -> tuple[int, str, object]:
        assert body is None
        sent.append(f"{method} {path}")
        return 404, "", {"error": "no"}

    monkeypatch.setattr(Client, "_send", send)
    with pytest.raises(ControlError):
        Client(tmp_path).ask(call, asked)
    assert sent == [line]


PARTS = Parts("flows", {"totals": []})


class Pieces:
    """An answer that comes in pieces of a few bytes."""

    def __init__(self, whole: bytes, size: int) -> None:
        self._whole, self._size = whole, size

    def read1(self, n: int = -1, /) -> bytes:
        """Return the next piece."""
        assert n > 0
        piece, self._whole = self._whole[: self._size], self._whole[self._size :]
        return piece


texts = st.sampled_from(["fibre", "],[", '],["', "a\\b", "\x1b[2J", '"flows":[', "é", "]}"])


@given(
    st.lists(st.lists(texts | st.integers() | st.none(), max_size=4), max_size=8),
    st.lists(texts, max_size=2),
    st.integers(1, 40),
    st.booleans(),
)
def test_an_answer_that_is_read_while_it_comes_is_the_same_as_at_the_end(
    flows: list[Any], columns: list[str], size: int, ascii_only: bool
) -> None:
    document = {"schema": 1, "columns": columns, "flows": flows, "totals": [{"uplink": "u"}], "later": [[1], [2]]}
    found: list[Any] = []
    answer = json.dumps(document, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    last = json.loads(PartReader(PARTS, found.append).read(Pieces(answer, size)))
    taken = [row for part in found for row in part["flows"]]
    assert taken == cleaned(flows)[: len(taken)]
    assert last["flows"] == flows[len(taken) :]
    assert {key: value for key, value in last.items() if key != "flows"} == {
        key: value for key, value in document.items() if key != "flows"
    }
    assert all(part["totals"] == [] and part["columns"] == cleaned(columns) for part in found)


def cleaned(value: Any) -> Any:
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    return printable(value, keep="\n\t") if isinstance(value, str) else value


def test_rows_are_taken_before_the_answer_has_come_to_its_end() -> None:
    found: list[Any] = []
    answer = b'{"schema":1,"columns":["a"],"flows":[[1],[2],[3]],"totals":[]}'
    last = PartReader(PARTS, found.append).read(Pieces(answer, 45))
    assert [part["flows"] for part in found] == [[[1]], [[2]]]
    assert json.loads(last)["flows"] == [[3]]


def in_parts(directory: Path, status: str, document: object) -> tuple[Flows, list[Flows]]:
    thread, found = answering(directory, status, document), list[Flows]()
    try:
        return Client(directory).ask_in_parts(calls.FLOWS, Words(words={}), PARTS, found.append), found
    finally:
        thread.join()


def test_the_parts_of_an_answer_are_documents(tmp_path: Path) -> None:
    totals = [{"uplink": "u", "connections": 2, "bytes_up": None, "bytes_down": None}]
    sent = {"schema": 1, "columns": ["a"], "flows": [[1], [2]], "totals": totals}
    last, found = in_parts(tmp_path, "200 OK", json.dumps(sent, separators=(",", ":")).encode())
    assert [part.flows for part in [*found, last]] == [((1,),), ((2,),)]
    assert [total.uplink for total in last.totals] == ["u"]


def test_a_daemon_that_fails_after_some_rows_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no buffer space") as caught:
        in_parts(tmp_path, "200 OK", {"schema": 1, "columns": [], "flows": [], "error": "no buffer space"})
    assert caught.value.status == 500


def test_so_is_one_of_which_the_whole_answer_is_asked_at_once(tmp_path: Path) -> None:
    thread = answering(tmp_path, "200 OK", {"schema": 1, "columns": [], "flows": [], "error": "no buffer space"})
    with pytest.raises(ControlError, match="no buffer space"):
        Client(tmp_path).ask(calls.FLOWS, Words(words={}))
    thread.join()


def test_a_refusal_of_parts_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no such uplink") as caught:
        in_parts(tmp_path, "404 Not Found", {"error": "no such uplink"})
    assert caught.value.status == 404


LIFE = b": hello\n\n"


def framed(name: str, document: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(document).encode())


@given(st.lists(st.sampled_from(["snapshot", "other", ""]), max_size=6), st.data())
def test_events_are_read_whole_however_they_come(names: list[str], data: st.DataObject) -> None:
    sent = b"".join(framed(name, encode(EMPTY)) if name else LIFE for name in names)
    reader, found, at = EventReader(calls.LIVE.events), [], 0
    while at < len(sent):
        upto = at + data.draw(st.integers(1, 2000))
        found += [*reader.read(sent[at:upto])]
        at = upto
    assert found == [EMPTY] * names.count("snapshot")


def test_texts_of_events_order_no_terminal_about() -> None:
    reader = EventReader(calls.LIVE.events)
    (found,) = reader.read(framed("snapshot", {**encode(EMPTY), "warnings": ["a\x1b[2Jb"]}))
    assert isinstance(found, Status)
    assert found.warnings == ("a\\x1b[2Jb",)


@pytest.mark.parametrize("data", [b"no JSON", b'{"schema": 1}', b"[]", b"\xff"])
def test_an_event_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(ControlError, match="cannot read the answer of the daemon"):
        [*EventReader(calls.LIVE.events).read(b"event: snapshot\ndata: " + data + b"\n\n")]


def test_a_stream_that_is_refused_says_why(tmp_path: Path) -> None:
    thread = answering(tmp_path, "503 Service Unavailable", {"error": "too many"})
    with pytest.raises(ControlError, match="too many") as caught:
        next(Client(tmp_path).follow(calls.LIVE, Nothing()))
    thread.join()
    assert caught.value.status == 503


def test_a_stream_of_a_daemon_that_knows_none_is_refused_in_words(tmp_path: Path) -> None:
    thread = answering(tmp_path, "404 Not Found", b"Not Found")
    with pytest.raises(ControlError, match="Not Found") as caught:
        next(Client(tmp_path).follow(calls.LIVE, Nothing()))
    thread.join()
    assert caught.value.status == 404


def test_a_stream_that_breaks_off_is_an_error_and_one_that_ends_is_none(tmp_path: Path) -> None:
    thread = answering(tmp_path, "200 OK", framed("snapshot", encode(EMPTY)))
    assert [*Client(tmp_path).follow(calls.LIVE, Nothing())] == [EMPTY]
    thread.join()
    (tmp_path / files.SOCKET).unlink()
    broken = b"Transfer-Encoding: chunked\r\n\r\n"
    thread = answering(tmp_path, "200 OK\r\n" + broken.decode().strip(), framed("snapshot", encode(EMPTY)))
    with pytest.raises(ControlError, match="no daemon answers"):
        [*Client(tmp_path).follow(calls.LIVE, Nothing())]
    thread.join()
