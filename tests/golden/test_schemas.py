"""What the daemon and `doctor` answer, as JSON Schema, and calls: a change of these changes every program that asks.

``pytest tests/golden --update-golden`` writes them anew; read the difference before you commit it: a key may be added,
with a default, and nothing else.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from polywan.api.calls import CALLS, STREAMS
from polywan.api.codec import schema
from polywan.api.doctor import Diagnosis
from polywan.api.document import Document
from polywan.api.openapi import openapi
from polywan.api.requests import Refusal, WhatToPlan

FOLDER = Path(__file__).parent / "schemas"
EVENTS: list[type[Document]] = [kind for stream in STREAMS for kind in stream.events.values()]
KINDS: list[type[Document]] = [*(call.answer for call in CALLS), *EVENTS, Refusal, WhatToPlan, Diagnosis]
DOCUMENTS = {kind.__name__: kind for kind in KINDS}


def objects(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the objects of a schema by name, the whole under its title."""
    return {document["title"]: document, **document.get("$defs", {})}


def may_be_null(kind: dict[str, Any]) -> bool:
    return "null" in kind.get("type", ()) or any(may_be_null(one) for one in kind.get("anyOf", ()))


def broken_promises(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the keys that another version would miss: those removed, and new ones that must be there."""
    found = []
    known = objects(before)
    for name, new in objects(after).items():
        old = known.get(name)
        if old is None:
            continue
        found += [f"{name}.{key} is removed" for key in old["properties"] if key not in new["properties"]]
        found += [
            f"{name}.{key} is of another type"
            for key, kind in new["properties"].items()
            if old["properties"].get(key, kind) != kind
        ]
        found += [
            f"{name}.{key} is new and has no default"
            for key in new["required"]
            if key not in old["required"] and not may_be_null(new["properties"][key])
        ]
    return found + [f"{name} is removed" for name in known if name not in objects(after)]


def held_to(name: str, text: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / name
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; see --update-golden"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schema_of_each_document_is_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / f"{name}.json"
    if path.exists():
        assert broken_promises(json.loads(path.read_text()), schema(DOCUMENTS[name])) == []
    held_to(path.name, json.dumps(schema(DOCUMENTS[name]), indent=2) + "\n", request)


class Before(Document):
    """A document."""

    gone: str
    same: str
    other: str


class After(Document):
    """The same in the next version."""

    new: str
    same: str
    other: int
    perhaps: str | None
    usual: str = "so"


def test_a_key_is_neither_removed_nor_changed_nor_added_without_a_default() -> None:
    before, after = ({**schema(kind), "title": "Same"} for kind in (Before, After))
    wrong = ["Same.gone is removed", "Same.other is of another type", "Same.new is new and has no default"]
    assert broken_promises(before, after) == wrong
    assert broken_promises({**before, "$defs": {"Part": schema(Before)}}, before) == ["Part is removed"]


def test_the_calls_are_as_recorded(request: pytest.FixtureRequest) -> None:
    lines = [f"{c.method} {c.path} {c.asked.__name__} -> {c.answer.__name__}\n" for c in CALLS]
    for stream in STREAMS:
        events = ", ".join(f"{name} {kind.__name__}" for name, kind in stream.events.items())
        lines.append(f"GET {stream.path} {stream.asked.__name__} -> events {events}\n")
    held_to("calls.txt", "".join(lines), request)


def test_the_description_of_the_socket_is_as_recorded_and_valid(request: pytest.FixtureRequest) -> None:
    described = openapi("1.0")
    OpenAPIV31SpecValidator(described).validate()
    held_to("openapi.json", json.dumps(described, indent=2) + "\n", request)


def test_documents_have_names_of_their_own() -> None:
    reached = {named(kind) for kind in every_kind(Document) if kind.__module__.startswith("polywan.api")}
    assert len({name for _, name in reached}) == len(reached)


def named(kind: type[Document]) -> tuple[str, str]:
    return kind.__module__, kind.__name__


def every_kind(kind: type[Document]) -> Iterator[type[Document]]:
    for each in kind.__subclasses__():
        yield each
        yield from every_kind(each)


def test_no_schema_is_left_of_a_document_that_is_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        "calls.txt",
        "openapi.json",
        *(f"{name}.json" for name in DOCUMENTS),
    }
