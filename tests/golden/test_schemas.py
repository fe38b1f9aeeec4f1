"""What the daemon answers, as JSON Schema, and its calls: a change of these is a change for every program that asks.

``pytest tests/golden --update-golden`` writes them anew; read the difference before you commit it: a key may be added,
with a default, and nothing else.
"""

import json
from pathlib import Path

import pytest

from polywan.api.calls import CALLS
from polywan.api.codec import schema
from polywan.api.document import Document
from polywan.api.requests import Refusal, WhatToPlan

FOLDER = Path(__file__).parent / "schemas"
KINDS: list[type[Document]] = [*(call.answer for call in CALLS.values()), Refusal, WhatToPlan]
DOCUMENTS = {kind.__name__: kind for kind in KINDS}


def held_to(name: str, text: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / name
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; see --update-golden"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schema_of_each_document_is_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    held_to(f"{name}.json", json.dumps(schema(DOCUMENTS[name]), indent=2) + "\n", request)


def test_the_calls_are_as_recorded(request: pytest.FixtureRequest) -> None:
    lines = [f"{c.method} {c.path} {c.asked.__name__} -> {c.answer.__name__}\n" for c in CALLS.values()]
    held_to("calls.txt", "".join(lines), request)


def test_no_schema_is_left_of_a_document_that_is_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"calls.txt", *(f"{name}.json" for name in DOCUMENTS)}
