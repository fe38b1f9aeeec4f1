"""The table of calls, and the daemon's answers to all of them."""

import asyncio
import re
from collections import Counter
from pathlib import Path

import pytest
from starlette.routing import Route

from polywan.api import calls
from polywan.api.calls import CALLS, STREAMS, Call, Stream
from polywan.api.document import DocumentType
from polywan.api.openapi import RIGHT, openapi
from polywan.api.requests import Words
from polywan.core.status.flow_list import flow_query_of
from polywan.core.trace.question import QUESTION_KEYS
from polywan.kernel.fake.kernel import FakeKernel
from support.daemons import daemon_over, places_in, service_of


def routes_of_the_daemon(directory: Path) -> list[Route]:
    async def made() -> list[Route]:
        kernel = FakeKernel()
        return service_of(daemon_over(kernel, directory), kernel, places_in(directory)).routes()

    return asyncio.run(made())


def test_every_call_is_listed_once() -> None:
    assert [id(call) for call in CALLS] == [id(each) for each in vars(calls).values() if isinstance(each, Call)]


def test_every_stream_is_listed_once() -> None:
    assert [id(one) for one in STREAMS] == [id(each) for each in vars(calls).values() if isinstance(each, Stream)]


def test_the_daemon_answers_every_call_once(tmp_path: Path) -> None:
    served = Counter(
        (method, route.path)
        for route in routes_of_the_daemon(tmp_path)
        for method in (route.methods or set()) - {"HEAD"}
    )
    asked = [(call.method, call.path) for call in CALLS] + [("GET", stream.path) for stream in STREAMS]
    asked.append(("GET", calls.OPENAPI))
    assert served == Counter(asked)
    assert set(served.values()) == {1}


def test_what_stands_in_the_path_is_asked_for_and_whatever_else_may_be_missing() -> None:
    for call in CALLS:
        assert isinstance(call.asked, DocumentType)
        in_path = set(re.findall(r"\{(\w+)", call.path))
        fields = call.asked.__fields__
        assert in_path <= fields.keys()
        if not call.body and call.asked is not Words:
            assert all(field.default is None for name, field in fields.items() if name not in in_path)


def test_only_what_is_posted_has_a_body() -> None:
    assert all(call.method == "POST" for call in CALLS if call.body)


def test_the_words_of_a_question_are_those_that_the_core_reads() -> None:
    assert {*calls.WHY.words} == QUESTION_KEYS | {"flow"}
    with pytest.raises(ValueError, match="unknown: other"):
        flow_query_of({"other": "", **dict.fromkeys(calls.FLOWS.words, "")})
    assert all((call.asked is Words) == bool(call.words) for call in CALLS)


def test_the_description_says_the_right_of_every_call() -> None:
    said = {
        (method.upper(), path): operation[RIGHT]
        for path, operations in openapi("1")["paths"].items()
        for method, operation in operations.items()
    }
    rights = {(call.method, call.path.replace(":path", "")): call.right for call in CALLS}
    rights |= {("GET", path): "read" for path in (*(stream.path for stream in STREAMS), calls.OPENAPI)}
    assert said == rights


def test_the_page_may_do_nothing_that_cannot_be_undone() -> None:
    """What is added here has to be weighed: the page's process parses what strangers send."""
    acting = {call.path.rpartition("/")[2] for call in CALLS if call.right == "act"}
    assert acting == {"disable", "drain", "enable", "test", "quota", "plan"}
