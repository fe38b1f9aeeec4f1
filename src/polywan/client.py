"""Talk to a running daemon by its control socket."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from polywan import files
from polywan.api.calls import Answered, Asked, Call, Stream
from polywan.api.codec import Doc, DocumentError, decode, encode
from polywan.api.document import Document
from polywan.api.requests import Refusal, Words
from polywan.core.errors import ConfigError, ControlError, Problem
from polywan.core.words import printable

DEFAULT_RUNTIME_DIR = Path("/run/polywan")


def runtime_dir(chosen: Path | None) -> Path:
    """Return the directory that was given, or POLYWAN_RUNTIME_DIR, or the default."""
    return chosen or Path(os.environ.get("POLYWAN_RUNTIME_DIR") or DEFAULT_RUNTIME_DIR)


def _is_plain(answer: bytes) -> bool:
    """True for JSON whose texts can hold nothing but printable ASCII: nothing is escaped, and nothing else is there."""
    return answer.isascii() and b"\\" not in answer and b"\x7f" not in answer


_HARMLESS = frozenset({int, float, bool, type(None)})


def _clean(value: Any) -> Any:
    """Escape what would order a terminal about in every text of a document: root reads what the daemon's user says."""
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, list):
        # Nearly all are harmless, and there may be a million of them.
        return [
            one if type(one) in _HARMLESS or (type(one) is str and one.isprintable()) else _clean(one) for one in value
        ]
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return value


def _loaded(answer: bytes) -> Any:
    found = json.loads(answer)
    # What is printable as it was sent needs no second look, and of connections there may be a million texts.
    return found if _is_plain(answer) else _clean(found)


class Parts(NamedTuple):
    """How an answer is read in parts.

    Attributes:
        key: of the list of lists.
        rest: keys that stand behind it, with what they are in a part.
    """

    key: str
    rest: Mapping[str, Any]


_AT_ONCE: Final = 1 << 18


class Source(Protocol):
    """Gives what has come, at most so many bytes; none at the end. Such as `http.client.HTTPResponse`."""

    def read1(self, n: int = -1, /) -> bytes:
        """Return some bytes."""


class PartReader:
    """Reads an answer while it comes; what is no list of lists as expected is left for the end, with everything.

    Args:
        parts: what is expected.
        take: gets the JSON of every part but the last.
    """

    def __init__(self, parts: Parts, take: Callable[[Any], None]) -> None:
        self._parts = parts
        self._take = take
        self._head = b""
        self._rest = b""
        self._splits = True

    def read(self, response: Source) -> bytes:
        """Read to the end, and return what has been in no part."""
        opening = f'"{self._parts.key}":['.encode()
        while piece := response.read1(_AT_ONCE):
            self._rest += piece
            if not self._head:
                before, found, behind = self._rest.partition(opening)
                if not found:
                    continue
                self._head, self._rest = before + found, behind
            self._split()
        return self._head + self._rest

    def _split(self) -> None:
        """Take rows up to the last comma between two. Inside of a text or behind the list, what precedes is no JSON."""
        end = self._rest.rfind(b"],[") + 1
        if not end or not self._splits:
            return
        try:
            rows = _loaded(b"[" + self._rest[:end] + b"]")
            found = {**_loaded(self._head + b"]}"), **self._parts.rest, self._parts.key: rows}
        except ValueError:
            self._splits = False
            return
        self._rest = self._rest[end + 1 :]
        self._take(found)


_IN_PATH: Final = re.compile(r"\{(\w+)(:path)?\}")


def request_of(call: Call[Asked, Any] | Stream[Asked], asked: Asked) -> tuple[str, str | None]:
    """Return path and query of a call, and its body."""
    said: dict[str, Any] = dict(asked.words) if isinstance(asked, Words) else encode(asked)
    path = _IN_PATH.sub(lambda part: quote(said.pop(part[1]), safe=""), call.path)
    if isinstance(call, Call) and call.body:
        return path, json.dumps(said)
    return (f"{path}?{urlencode(said)}" if said else path), None


class EventReader:
    """Reads server-sent events (HTML Living Standard 9.2, as far as polywan uses it) from bytes in any pieces.

    Args:
        kinds: what each event carries, by its name; other events are of a newer daemon, and passed over.
    """

    def __init__(self, kinds: Mapping[str, type[Document]]) -> None:
        self._kinds = kinds
        self._rest = b""

    def read(self, piece: bytes) -> Iterator[Document]:
        """Yield the events that are whole with this piece.

        Raises:
            ControlError: one of them makes no sense.
        """
        # What has come of a long one is not looked through again with each piece.
        if b"\n" not in piece:
            self._rest += piece
            return
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            lines = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
            kind = self._kinds.get(lines.get(b"event", b"").decode(errors="replace"))
            if kind is not None:
                yield _read(kind, _parsed(lines.get(b"data", b"")))


def _parsed(data: bytes) -> Any:
    try:
        return _loaded(data)
    except ValueError as error:
        raise senseless(error) from error


STREAM_TIMEOUT: Final = 40.0
"""Seconds without an event, or a sign of life, after which a stream has ended; there is one every 15 s."""

SENSELESS: Final = 502
"""Status of an answer that cannot be read (RFC 9110, 15.6.3)."""


def _read(kind: type[Doc], body: object, *, done: bool = False) -> Doc:
    try:
        return decode(kind, body)
    except DocumentError as error:
        raise senseless(error, done=done) from error


def senseless(error: DocumentError | ValueError, *, done: bool = False) -> ControlError:
    """Return the error for an answer that is no such document.

    Args:
        error: what is wrong with it.
        done: the daemon has carried something out, so that a restart would undo or repeat it.
    """
    if done:
        text = f"the daemon has carried it out, but its answer cannot be read ({error})"
        return ControlError(f"{text}: it may be of another version", SENSELESS)
    return ControlError(
        f"cannot read the answer of the daemon ({error}): it may be of another version; restart it", SENSELESS
    )


def _refused(answer: bytes) -> str | None:
    """Return why the daemon refuses; None where it says nothing that can be read."""
    try:
        return _read(Refusal, _loaded(answer)).error
    except (ValueError, ControlError):
        return None


def _phrase(error: Exception) -> str:
    """Say what went wrong without the number that Python puts before it."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


def unreachable(socket_path: Path, error: Exception) -> ControlError:
    """Return the error for a daemon that cannot be asked; the status is 403 where this user may not."""
    if isinstance(error, PermissionError):
        text = f"{socket_path}: permission denied: use sudo, or join the group of the socket (`polywan`)"
        return ControlError(text, 403)
    return ControlError(
        f"no daemon answers at {socket_path}: {_phrase(error)}; is `polywan run` running, and is this its "
        "--runtime-dir?"
    )


_AGAIN = 0.02
"""Seconds between two tries to get into a full queue of connections."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        # Root asks here too, and a link in the daemon's user's directory must not lead it to another program's socket.
        descriptor = files.own_socket(self._path)
        until = time.monotonic() + (self.timeout or 0.0)
        try:
            while not self._reached(f"/proc/self/fd/{descriptor}"):
                if time.monotonic() > until:
                    raise ControlError(f"{self._path}: too many other clients are waiting; try again", 503)
                time.sleep(_AGAIN)
        finally:
            os.close(descriptor)

    def _reached(self, path: str) -> bool:
        """Connect; False while others fill the queue of the socket (EAGAIN, unix(7): a timeout makes it no wait)."""
        try:
            self.sock.connect(path)
        except BlockingIOError:
            return False
        return True


class Client:
    """One daemon, named by its runtime directory. Each call is one request."""

    def __init__(self, directory: Path, timeout: float = 10.0) -> None:
        self._path = directory / files.SOCKET
        self._timeout = timeout

    def ask(self, call: Call[Asked, Answered], asked: Asked) -> Answered:
        """Make a call of `polywan/api/calls.py`, and return what the daemon answers.

        Raises:
            ControlError: the daemon cannot be reached, refuses, or its answer makes no sense.
            ConfigError: a configuration is bad.
        """
        path, body = request_of(call, asked)
        status, reason, answer = self._send(call.method, path, body)
        if status < 400:
            return _read(call.answer, answer, done=call.method == "POST" and not call.body)
        refusal = _read(Refusal, answer)
        if status == 422:
            raise ConfigError([Problem(p.where, p.key, p.message, p.hint) for p in refusal.problems or ()])
        raise ControlError(reason if refusal.error is None else refusal.error, status)

    def ask_in_parts(
        self, call: Call[Asked, Answered], asked: Asked, parts: Parts, take: Callable[[Answered], None]
    ) -> Answered:
        """Make a call whose answer has a list of tens of thousands of lists, and read it while it comes.

        Args:
            call: the call.
            asked: what it says.
            parts: which list, and what a document has that is a part of the answer.
            take: gets documents with the first rows, the next ones and so on; what is returned has the last ones.

        Raises:
            ControlError: as by `ask`; or the daemon failed after some rows.
        """
        path, body = request_of(call, asked)
        reader = PartReader(parts, lambda found: take(_read(call.answer, found)))
        status, reason, answer = self._send(call.method, path, body, reader)
        if status >= 400:
            raise ControlError(_read(Refusal, answer).error or reason, status)
        return _read(call.answer, answer)

    def follow(self, stream: Stream[Asked], asked: Asked) -> Iterator[Document]:
        """Yield the events of a stream of `polywan/api/calls.py` as they come, until the daemon ends it.

        Whoever has enough closes the iterator, as leaving it by an exception such as KeyboardInterrupt does.

        Raises:
            ControlError: the daemon cannot be reached, refuses, or is gone; or an event makes no sense.
        """
        path, _ = request_of(stream, asked)
        connection, reader = _Connection(self._path, STREAM_TIMEOUT), EventReader(stream.events)
        try:
            with self._reaching():
                with suppress(BrokenPipeError):
                    connection.request("GET", path)
                response = connection.getresponse()
                refused = response.read() if response.status >= 400 else b""
            if response.status >= 400:
                raise ControlError(_refused(refused) or response.reason, response.status)
            while piece := self._next(response):
                yield from reader.read(piece)
        finally:
            connection.close()

    def _next(self, response: Source) -> bytes:
        with self._reaching():
            return response.read1(_AT_ONCE)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Say in words what keeps the daemon from answering."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._path, error) from error

    def _send(self, method: str, path: str, text: str | None, parts: PartReader | None = None) -> tuple[int, str, Any]:
        connection = _Connection(self._path, self._timeout)
        try:
            with self._reaching():
                # A daemon that has too many connections answers before it is asked, and closes.
                with suppress(BrokenPipeError):
                    connection.request(method, path, text)
                with connection.getresponse() as response:
                    status, reason = response.status, response.reason
                    answer = response.read() if parts is None or status >= 400 else parts.read(response)
        finally:
            connection.close()
        try:
            document = _loaded(answer or b"{}")
        except ValueError as error:
            # What a daemon says to a call that it does not know is not JSON.
            if status >= 400:
                raise ControlError(f"the daemon refuses ({reason}): it may be of another version", status) from error
            raise senseless(error, done=method == "POST" and text is None) from error
        # The daemon had begun an answer when it failed.
        if status < 400 and isinstance(document, dict) and isinstance(document.get("error"), str):
            raise ControlError(document["error"], 500)
        return status, reason, document
