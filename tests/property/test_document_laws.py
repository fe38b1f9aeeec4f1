"""Whatever a daemon answers, it is a document or a sentence about what is wrong with it."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.api.calls import CALLS, STREAMS
from polywan.api.codec import Doc, DocumentError, decode, encode
from polywan.api.document import Document
from polywan.api.flows import Flows
from polywan.api.status import Status
from polywan.api.views.flow_rows import FlowRow, rows_of
from support.documents import outage, policy, status, uplink

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
EVENTS: list[type[Document]] = [kind for stream in STREAMS for kind in stream.events.values()]
ANSWERS: list[type[Document]] = [*(call.answer for call in CALLS), *EVENTS]
WHOLE = encode(
    status(
        uplink("fibre", outages=(outage(10, None, "no carrier"),)),
        policies=(policy("default", {"ipv4": {"fibre": 1.0}, "ipv6": {}}),),
        warnings=("look here",),
    )
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The status with something else, or nothing, in one place."""
    document = copy.deepcopy(WHOLE)
    part: Any = document
    while True:
        place = draw(st.sampled_from([*part] if isinstance(part, dict) else range(len(part))))
        deeper = isinstance(part[place], dict | list) and len(part[place]) > 0
        if deeper and draw(st.integers(0, 4)):
            part = part[place]
        elif draw(st.booleans()):
            part[place] = draw(anything)
            return document
        else:
            del part[place]
            return document


def read(kind: type[Doc], value: Any) -> Doc | None:
    """The document, or None for what is refused; whatever else is raised is a fault."""
    try:
        return decode(kind, value)
    except DocumentError as error:
        return None if str(error) else pytest.fail("nothing is said")


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
@given(value=anything)
def test_no_json_makes_a_reader_fail(kind: type[Document], value: Any) -> None:
    found = read(kind, value)
    assert isinstance(value, dict) or found is None


@given(mutated())
def test_what_is_read_of_a_changed_document_is_written_and_read_again(document: Any) -> None:
    found = read(Status, document)
    assert found is None or decode(Status, json.loads(json.dumps(encode(found)))) == found


@given(st.permutations(FlowRow._fields), st.lists(st.lists(plain, max_size=20), max_size=5))
def test_no_list_of_connections_makes_a_reader_fail(columns: list[str], flows: list[Any]) -> None:
    found = read(Flows, {"schema": 1, "columns": columns, "flows": flows, "totals": []})
    with suppress(DocumentError):
        assert found is None or len(rows_of(found)) == len(flows)
