"""The control socket against those who connect to it: real asyncio, real unix sockets, no root."""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from polywan import serving as serving_module
from polywan.api import calls
from polywan.api.events import Events
from polywan.api.requests import Nothing, OfEvents, ToReload, WhatToPlan
from polywan.api.running import Planned, Reloaded
from polywan.api.status import Status
from polywan.client import Client
from polywan.core.errors import ControlError
from polywan.daemon.api import http, peers
from polywan.daemon.api.admission import EACH, MOST_PEERS, READER_PEERS
from polywan.daemon.api.http import Written, route, serving, stream_route, written_route
from polywan.daemon.api.peers import user_of
from polywan.serving import Server
from support.documents import status

READER, OTHER, ROOT = 1000, 1001, 0
GET = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"


EMPTY = status()


class Api:
    """Answers what these tests ask for."""

    async def status(self, _: Nothing) -> Status:
        return EMPTY

    async def reload(self, _: ToReload) -> Reloaded:
        return Reloaded(generation=1, changed=False, ms=0.0, changes=())

    def routes(self) -> list[Route]:
        return [route(calls.STATUS, self.status), route(calls.RELOAD, self.reload)]


class Talkative:
    """Answers what comes in pieces, or late."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.ended = threading.Event()

    async def plan(self, _: WhatToPlan) -> Planned:
        return Planned(ops=(), warnings=())

    async def events(self, _: OfEvents) -> Events:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError

    async def follow(self, _: Nothing) -> AsyncIterator[bytes]:
        self.waiting.set()
        try:
            while True:
                yield b"data: 0\n\n" * 100_000
                await asyncio.sleep(0.01)
        finally:
            self.ended.set()

    def routes(self) -> list[Route]:
        return [
            route(calls.PLAN, self.plan),
            route(calls.JOURNAL, self.events, waits=True),
            stream_route(calls.LIVE, self.follow),
            written_route("/v1/large", lambda: b" " * (16 << 20)),
        ]


class Users:
    """Says whose the next connections are."""

    def __init__(self, uid: int) -> None:
        self.uid = uid

    def __call__(self, connection: socket.socket) -> int:
        return self.uid


def play(
    directory: Path, users: Users, story: Callable[[Path, Users], object], routes: Sequence[Route] | None = None
) -> None:
    async def run() -> None:
        async with serving(Api().routes() if routes is None else routes, directory, users):
            await asyncio.to_thread(story, directory, users)

    asyncio.run(run())


def connect(directory: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(5)
    sock.connect(str(directory / "control.sock"))
    return sock


def ended(sock: socket.socket) -> bool:
    """Wait for the end of a connection."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def ended_after(sock: socket.socket, said: bytes) -> bool:
    """Say something and wait for the end of the connection, for a moment."""
    sock.settimeout(0.02)
    try:
        sock.sendall(said)
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


@pytest.mark.parametrize("header", ["X-Forwarded-For: 0", "X-Forwarded-For: x", "X-Forwarded-Proto: https"])
def test_no_header_makes_a_reader_a_writer_whatever_the_environment_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(f"POST /v1/reload HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n".encode())
            assert sock.recv(64).startswith(b"HTTP/1.1 403")

    play(tmp_path, Users(READER), story)


@pytest.mark.parametrize("uid", [ROOT, peers.writers()[1]])
def test_root_and_the_daemons_user_may_change_things(tmp_path: Path, uid: int) -> None:
    play(tmp_path, Users(uid), lambda directory, _: Client(directory).ask(calls.RELOAD, ToReload()))


def test_the_kernel_says_whose_a_connection_is() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert user_of(one) == peers.writers()[1]


def test_a_reader_with_too_many_connections_is_told_so_and_others_get_answers(tmp_path: Path) -> None:
    def story(directory: Path, users: Users) -> None:
        mine = [connect(directory) for _ in range(EACH)]
        with pytest.raises(ControlError, match="user 1000 has 8 connections") as caught:
            Client(directory).ask(calls.STATUS, Nothing())
        assert caught.value.status == 503
        for users.uid in (OTHER, ROOT):
            assert Client(directory).ask(calls.STATUS, Nothing()) == EMPTY
        for sock in mine:
            sock.close()

    play(tmp_path, Users(READER), story)


def test_many_readers_cannot_keep_root_out(tmp_path: Path) -> None:
    def story(directory: Path, users: Users) -> None:
        ours = []
        for users.uid in range(READER, READER + READER_PEERS // EACH + 2):
            ours += [connect(directory) for _ in range(EACH)]
            # Asked and answered: whoever came before has been seen.
            ours[-1].sendall(GET)
            assert ours[-1].recv(64).startswith(b"HTTP/1.1 " + (b"200" if len(ours) <= READER_PEERS else b"503"))
        users.uid = ROOT
        assert Client(directory).ask(calls.STATUS, Nothing()) == EMPTY
        for sock in ours:
            sock.close()

    play(tmp_path, Users(READER), story)


def test_a_connection_that_ended_makes_room(tmp_path: Path) -> None:
    def story(directory: Path, users: Users) -> None:
        for _ in range(3 * MOST_PEERS):
            assert Client(directory).ask(calls.STATUS, Nothing()) == EMPTY

    play(tmp_path, Users(READER), story)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /v1/st",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        GET,
        GET + b"G",
        GET + GET,
    ],
)
def test_a_connection_without_a_whole_request_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.1)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(said)
            assert ended(sock)

    play(tmp_path, Users(ROOT), story)


def test_a_request_that_comes_byte_by_byte_does_not_win_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.2)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            assert any(ended_after(sock, b"x") for _ in range(500))

    play(tmp_path, Users(READER), story)


def test_an_answer_that_takes_long_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.05)

    async def slow(_: Api, asked: Nothing) -> Status:
        await asyncio.sleep(0.3)
        return EMPTY

    monkeypatch.setattr(Api, "status", slow)
    play(tmp_path, Users(READER), lambda directory, _: Client(directory).ask(calls.STATUS, Nothing()))


def test_whoever_does_not_read_an_answer_loses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.05)
    monkeypatch.setattr(serving_module, "READ_TIMEOUT", 0.2)
    pieces = [b" " * 65536] * 100

    async def large(_: Api, asked: Nothing) -> Written[Status]:
        return Written(pieces)

    monkeypatch.setattr(Api, "status", large)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock, connect(directory) as other:
            sock.sendall(GET)
            other.sendall(GET)
            read = 0
            while read < len(pieces) * 65536:
                read += len(other.recv(65536))
            hung_up = select.poll()
            hung_up.register(sock, 0)
            assert hung_up.poll(5000)
            # What the kernel had room for is there, and then the end.
            assert sum(map(len, iter(lambda: sock.recv(65536), b""))) < read

    play(tmp_path, Users(READER), story)


def looks_for_unread(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what is set once the server has seen that something of an answer waits to be read."""
    looked = threading.Event()
    waited = serving_module._Peer._unread_for

    def unread_for(peer: serving_module._Peer, seconds: float) -> bool:
        if peer._unread_since is not None:
            looked.set()
        return waited(peer, seconds)

    monkeypatch.setattr(serving_module._Peer, "_unread_for", unread_for)
    return looked


def test_whoever_reads_an_answer_late_gets_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.3)
    looked = looks_for_unread(monkeypatch)
    pieces = [b" " * 65536] * 100

    async def large(_: Api, asked: Nothing) -> Written[Status]:
        return Written(pieces)

    monkeypatch.setattr(Api, "status", large)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(GET)
            assert looked.wait(5)
            read = 0
            while read < len(pieces) * 65536:
                piece = sock.recv(65536)
                assert piece
                read += len(piece)

    play(tmp_path, Users(READER), story)


class Exhausted(socket.socket):
    """A listening socket of a process without free descriptors."""

    tries = 0

    def accept(self) -> tuple[socket.socket, Any]:
        Exhausted.tries += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_without_descriptors_the_socket_is_left_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        with Exhausted(socket.AF_UNIX, socket.SOCK_STREAM) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(str(tmp_path / "s"))
            listener.listen(1)
            client.connect(str(tmp_path / "s"))
            server = Server(
                uvicorn.Config(Starlette(), lifespan="off", log_config=None), [peers.entrance(listener)], peers.refused
            )
            task = asyncio.create_task(server.serve(sockets=[]))
            await asyncio.sleep(0.3)
            server.stop()
            await task

    caplog.set_level(logging.WARNING)
    Exhausted.tries = 0
    asyncio.run(run())
    assert Exhausted.tries == 1
    assert [record.getMessage() for record in caplog.records] == [
        "control.refused: clients cannot connect for now: Too many open files"
    ]


def test_refusals_are_logged_once_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def story(directory: Path, users: Users) -> None:
        ours = [connect(directory) for _ in range(5 * EACH)]
        assert ended(ours[-1])
        for sock in ours:
            sock.close()

    caplog.set_level(logging.WARNING)
    play(tmp_path, Users(READER), story)
    assert len([r for r in caplog.records if "control.refused" in r.getMessage()]) == 1


def test_of_what_a_reader_says_behind_the_head_nothing_is_kept(tmp_path: Path) -> None:
    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            # Answered before it has come.
            sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
            assert sock.recv(64).startswith(b"HTTP/1.1 200")

    play(tmp_path, Users(READER), story)


def test_a_question_that_is_too_long_is_refused_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LARGEST_QUESTION", 1 << 20)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + b" " * (2 << 20))
            assert sock.recv(64).startswith(b"HTTP/1.1 413")

    play(tmp_path, Users(ROOT), story, Talkative().routes())


def test_who_goes_in_the_middle_of_a_question_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            # Now it is waited for.
            assert sock.recv(64).startswith(b"HTTP/1.1 100")

    play(tmp_path, Users(ROOT), story, Talkative().routes())
    assert caplog.records == []


def test_nothing_waits_for_a_client_that_has_gone(tmp_path: Path) -> None:
    talkative = Talkative()

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(b"GET /v1/events?after=0&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert talkative.waiting.wait(5)
            assert not talkative.ended.is_set()
        assert talkative.ended.wait(5)

    play(tmp_path, Users(READER), story, talkative.routes())


def test_the_head_of_a_stream_can_be_asked_for_and_is_all_that_comes(tmp_path: Path) -> None:
    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(b"HEAD /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            found = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b"content-type: text/event-stream" in found

    play(tmp_path, Users(READER), story, Talkative().routes())


@pytest.mark.parametrize(
    ("said", "begun"),
    [
        (b"GET /v1/plan HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", True),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_no_http_behind_a_head_ends_the_connection_and_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, said: bytes, begun: bool, at_once: bool
) -> None:
    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(said + b"zz\r\n" if at_once else said)
            if begun and not at_once:
                assert sock.recv(64).startswith(b"HTTP/1.1 ")
            if not at_once:
                sock.sendall(b"zz\r\n")
            assert ended(sock)

    play(tmp_path, Users(ROOT), story, Talkative().routes())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_answer_that_was_given_at_once_may_be_read_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.3)
    looked = looks_for_unread(monkeypatch)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(b"GET /v1/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert looked.wait(5)
            assert sum(map(len, iter(lambda: sock.recv(1 << 20), b""))) > 16 << 20

    play(tmp_path, Users(READER), story, Talkative().routes())


def test_whoever_reads_slowly_is_not_taken_for_one_who_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may let either side wait for some of that.
    monkeypatch.setattr(serving_module, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(serving_module, "READ_TIMEOUT", 1.5)
    pieces = [b" " * 65536] * 100

    async def large(_: Api, asked: Nothing) -> Written[Status]:
        return Written(pieces)

    monkeypatch.setattr(Api, "status", large)

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(GET)
            began, read = time.monotonic(), 0
            while read < len(pieces) * 65536:
                slowly = time.monotonic() < began + 3.5
                piece = sock.recv(4096 if slowly else 1 << 20)
                assert piece
                read += len(piece)
                if slowly:
                    select.select([], [], [], 0.01)

    play(tmp_path, Users(READER), story)


def test_nothing_more_is_written_for_who_stops_talking_http(tmp_path: Path) -> None:
    talkative = Talkative()

    def story(directory: Path, users: Users) -> None:
        with connect(directory) as sock:
            sock.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert talkative.waiting.wait(5)
            sock.sendall(b"zz\r\n")
            assert talkative.ended.wait(5)

    play(tmp_path, Users(READER), story, talkative.routes())
