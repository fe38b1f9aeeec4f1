"""Talk to a running daemon by its control socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from polywan import files
from polywan.api.codec import Doc, DocumentError, decode
from polywan.api.status import Status
from polywan.core.errors import ConfigError, ControlError, Problem
from polywan.core.words import printable

DEFAULT_RUNTIME_DIR = Path("/run/polywan")


def runtime_dir(chosen: Path | None) -> Path:
    """Return the directory that was given, or POLYWAN_RUNTIME_DIR, or the default."""
    return chosen or Path(os.environ.get("POLYWAN_RUNTIME_DIR") or DEFAULT_RUNTIME_DIR)


def _clean(value: Any) -> Any:
    """Escape what would order a terminal about in every text of a document: root reads what the daemon's user says."""
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return value


def _with(path: str, words: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(words)}" if words else path


def _read(kind: type[Doc], body: object) -> Doc:
    try:
        return decode(kind, body)
    except DocumentError as error:
        raise ControlError(f"the daemon's answer makes no sense: {error}; is it of another version?", 502) from error


def _phrase(error: Exception) -> str:
    """Say what went wrong without the number that Python puts before it."""
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


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
                    raise TimeoutError("too many other clients are waiting")
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
    """One daemon, named by its runtime directory. Each call is one request.

    Every call raises ControlError when the daemon cannot be reached or refuses.
    """

    def __init__(self, directory: Path, timeout: float = 10.0) -> None:
        self._path = directory / files.SOCKET
        self._timeout = timeout

    def status(self) -> Status:
        """Return the status document."""
        return _read(Status, self._answer("GET", "/v1/status"))

    def show(self, what: str) -> str:
        """Return the text of nft, routes, rules or config."""
        return str(self._request("GET", f"/v1/show/{what}")["text"])

    def why(self, words: Mapping[str, str]) -> dict[str, Any]:
        """Return which way a connection would take, and why; `words` as in `core/trace/question.py`.

        Status 400 of the error: the question makes no sense.
        """
        return self._request("GET", _with("/v1/why", words))

    def reload(self) -> dict[str, Any]:
        """Make the daemon read its file again and wait until it is in force.

        Raises:
            ConfigError: the file is bad; the old configuration stays in force.
        """
        return self._request("POST", "/v1/reload")

    def via(self, uplink: str) -> dict[str, Any]:
        """Make the daemon look at the control group of an uplink's programs, and wait until the kernel asks for it."""
        return self._request("POST", f"/v1/via/{quote(uplink, safe='')}")

    def flows(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """Return tracked connections; `wanted` as `core.status.flow_list.wanted_of` reads it."""
        return self._request("GET", _with("/v1/flows", wanted))

    def affinity(self, policy: str | None = None) -> dict[str, Any]:
        """Return the clients that keep their uplink, of a policy or of all."""
        return self._request("GET", _with("/v1/affinity", {"policy": policy} if policy else {}))

    def clear_affinity(self, address: str | None, policy: str | None = None) -> dict[str, Any]:
        """Forget the clients of an address or network, or all; of a policy or of every one."""
        asked = {"address": address} if address is not None else {"all": "true"}
        return self._request("POST", _with("/v1/affinity/clear", asked | ({"policy": policy} if policy else {})))

    def order(self, uplink: str, verb: str, deadline: str | None = None) -> dict[str, Any]:
        """Disable, drain or enable an uplink (`verb`) and wait until that is in force; `deadline` as "10m", for drain.

        Status 404 of the error: there is no such uplink; 400: that is no deadline.
        """
        path = f"/v1/uplinks/{quote(uplink, safe='')}/{verb}"
        return self._request("POST", _with(path, {} if deadline is None else {"deadline": deadline}))

    def test(self, uplink: str) -> dict[str, Any]:
        """Make the daemon probe an uplink now, and return what each layer says."""
        return self._request("POST", f"/v1/uplinks/{quote(uplink, safe='')}/test")

    def plan(self, files: Mapping[str, str], namespace: str) -> dict[str, Any]:
        """Return what a configuration, the texts of its files by name, would change now: ops, warnings.

        Status 409 of the error: the daemon runs in another network namespace.

        Raises:
            ConfigError: the configuration is bad.
        """
        return self._request("POST", "/v1/plan", json.dumps({"files": dict(files), "namespace": namespace}))

    def down(self) -> dict[str, Any]:
        """Make the daemon leave the kernel as found and end."""
        return self._request("POST", "/v1/down")

    def _request(self, method: str, path: str, text: str | None = None) -> dict[str, Any]:
        return dict(self._answer(method, path, text))

    def _answer(self, method: str, path: str, text: str | None = None) -> Any:
        connection = _Connection(self._path, self._timeout)
        try:
            # A daemon that has too many connections answers before it is asked, and closes.
            with suppress(BrokenPipeError):
                connection.request(method, path, text)
            response = connection.getresponse()
            body = _clean(json.loads(response.read() or b"{}"))
        except PermissionError as error:
            raise ControlError(
                f"{self._path}: permission denied: use sudo, or join the group of the socket (`polywan`)", 403
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ControlError(
                f"no daemon answers at {self._path}: {_phrase(error)}; is `polywan run` running, and is this its "
                "--runtime-dir?"
            ) from error
        finally:
            connection.close()
        if response.status == 422:
            raise ConfigError([Problem(**p) for p in body.get("problems", [])])
        if response.status >= 400:
            raise ControlError(str(body.get("error", response.reason)), response.status)
        return body
