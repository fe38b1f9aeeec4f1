"""Documents that outlive a daemon: older ones are brought up, newer ones refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from polywan.core.errors import NewerError
from polywan.core.versions import upgraded


def with_b(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**document, "b": document["a"] + 1}


def without_a(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in document.items() if name != "a"}


MIGRATIONS = (with_b, without_a)


@pytest.mark.parametrize("document", [{"a": 1}, {"version": 0, "a": 1}, {"version": 1, "a": 9, "b": 2}])
def test_an_older_document_is_brought_up_version_by_version(document: Mapping[str, Any]) -> None:
    before = dict(document)
    assert upgraded(document, MIGRATIONS, "x.json", "it is lost") == {"version": 2, "b": 2}
    assert document == before


def test_a_document_of_our_version_is_returned_as_it_is() -> None:
    assert upgraded({"version": 2, "b": 7}, MIGRATIONS, "x.json", "it is lost") == {"version": 2, "b": 7}


def test_a_newer_document_is_refused_with_both_versions_and_what_to_do() -> None:
    with pytest.raises(NewerError, match=r"^x.json was written .*version 3; .* version 2.* without it, it is lost"):
        upgraded({"version": 3}, MIGRATIONS, "x.json", "it is lost")


@pytest.mark.parametrize("document", [[], "x", 3, None, {"version": "1"}, {"version": True}, {"version": -1}])
def test_what_is_no_such_document_is_an_error_of_its_own(document: object) -> None:
    with pytest.raises(ValueError, match=r"expected an object|not a whole number"):
        upgraded(document, MIGRATIONS, "x.json", "it is lost")
