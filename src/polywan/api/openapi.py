"""The calls as an OpenAPI 3.1 document, made from the table of calls and the types of the documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from polywan.api.calls import CALLS, OPENAPI, STREAMS, Call, Stream
from polywan.api.codec import Defs, definitions
from polywan.api.document import Document
from polywan.api.requests import Refusal, Words

_IN_PATH: Final = re.compile(r"\{(\w+)(?::path)?\}")
RIGHT: Final = "x-right"
"""Key of the right that an operation needs, as `Call.right` has it."""

_ABOUT: Final = (
    "The control socket of polywan. `x-right` says who may make a call: read: who may connect; act: root, the daemon's "
    "user, and the user polywan-web; manage: root and the daemon's user. The page of `polywan web` has the calls with "
    "read and act below /api, for tokens of these scopes. Fields and calls are added, never changed."
)


def openapi(version: str) -> dict[str, Any]:
    """Return the document.

    Args:
        version: of the program.
    """
    kinds: list[type[Document]] = [Refusal]
    paths: dict[str, Any] = {}
    for call in CALLS:
        kinds += [call.answer, *([call.asked] if call.body else [])]
        _put(paths, call.path, call.method, _operation(call))
    for stream in STREAMS:
        kinds += stream.events.values()
        _put(paths, stream.path, "GET", _streamed(stream))
    _put(paths, OPENAPI, "GET", _own())
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "polywan",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "GPL-2.0-or-later"},
        },
        "servers": [{"url": "http://localhost", "description": "the socket /run/polywan/control.sock (unix(7))"}],
        "paths": paths,
        "components": {"schemas": _schemas(kinds)},
    }
    found: dict[str, Any] = json.loads(json.dumps(document).replace('"#/$defs/', '"#/components/schemas/'))
    return found


def _schemas(kinds: Iterable[type[Document]]) -> Defs:
    return dict(sorted(definitions(kinds).items()))


def _put(paths: dict[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> None:
    plain = _IN_PATH.sub(r"{\1}", path)
    name = "_".join(re.findall(r"\w+", plain)[1:])
    paths.setdefault(plain, {})[method.lower()] = {"operationId": f"{method.lower()}_{name}", **operation}


def _operation(call: Call[Any, Any]) -> dict[str, Any]:
    said = _parameters(call.path, call.asked, call.words, body=call.body)
    found: dict[str, Any] = {"summary": _first_line(call.answer), RIGHT: call.right, "parameters": said}
    if call.body:
        content = {"application/json": {"schema": _reference(call.asked)}}
        found["requestBody"] = {"required": True, "description": _first_line(call.asked), "content": content}
    return found | {"responses": _responses({"application/json": {"schema": _reference(call.answer)}})}


def _streamed(stream: Stream[Any]) -> dict[str, Any]:
    events = {name: _reference(kind) for name, kind in stream.events.items()}
    # OpenAPI 3.1 has no word for what the events of a stream carry.
    content = {"text/event-stream": {"schema": {"type": "string"}, "x-events": events}}
    return {
        "summary": "Events as they happen (server-sent events), until the client goes.",
        RIGHT: "read",
        "parameters": _parameters(stream.path, stream.asked, {}, body=False),
        "responses": _responses(content),
    }


def _own() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"summary": "This document.", RIGHT: "read", "parameters": [], "responses": _responses(content)}


def _parameters(path: str, asked: type[Document], words: Mapping[str, str], *, body: bool) -> list[dict[str, Any]]:
    in_path = [match[1] for match in _IN_PATH.finditer(path)]
    found = [_parameter(name, "path", "") for name in in_path]
    if asked is Words:
        return found + [_parameter(name, "query", text) for name, text in words.items()]
    if body:
        return found
    return found + [_parameter(name, "query", "") for name in asked.__fields__ if name not in in_path]


def _parameter(name: str, place: str, text: str) -> dict[str, Any]:
    described = {"description": text} if text else {}
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}, **described}


def _responses(content: Mapping[str, Any]) -> dict[str, Any]:
    refused = {"application/json": {"schema": _reference(Refusal)}}
    return {
        "200": {"description": "done", "content": content},
        "default": {"description": "refused, with the reason", "content": refused},
    }


def _reference(kind: type[Document]) -> dict[str, str]:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _first_line(kind: type[Document]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
