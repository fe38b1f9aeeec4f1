"""Documents as JSON and back: strict about what is there, open to what is new."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import pytest

from polywan.api.codec import DocumentError, decode, encode, schema
from polywan.api.document import Document


class Leg(Document):
    """A leg."""

    length: float
    foot: str | None
    shoe: str | None = None


class Dog(Document):
    """A dog, for tests.

    More of it.
    """

    name: str
    age: int
    good: bool
    mood: Literal["calm", "wild"]
    legs: tuple[Leg, ...]
    by_name: Mapping[str, Leg]
    tail: Leg | None
    cells: tuple[tuple[str | int | None, ...], ...]
    coat: str = "brown"


LEG = Leg(length=1.5, foot=None)
DOG = Dog(
    name="rex",
    age=3,
    good=True,
    mood="calm",
    legs=(LEG, Leg(length=2, foot="left", shoe="red")),
    by_name={"front": LEG},
    tail=None,
    cells=(("a", 1, None), ()),
)
JSON: dict[str, Any] = {
    "name": "rex",
    "age": 3,
    "good": True,
    "mood": "calm",
    "legs": [{"length": 1.5, "foot": None}, {"length": 2, "foot": "left", "shoe": "red"}],
    "by_name": {"front": {"length": 1.5, "foot": None}},
    "tail": None,
    "cells": [["a", 1, None], []],
    "coat": "brown",
}


def test_a_document_is_written_in_the_order_of_its_fields_and_read_back() -> None:
    assert encode(DOG) == JSON
    assert list(encode(DOG)) == list(JSON)
    assert decode(Dog, json.loads(json.dumps(encode(DOG)))) == DOG


def test_none_is_null_unless_it_is_the_default_which_is_left_out() -> None:
    assert encode(LEG) == {"length": 1.5, "foot": None}


def test_words_of_an_enumeration_are_text() -> None:
    word = StrEnum("word", ["LEFT"]).LEFT  # type: ignore[attr-defined] # made while it runs
    assert json.dumps(encode(Leg(length=1, foot=word))) == '{"length": 1, "foot": "left"}'


def test_what_a_newer_daemon_adds_is_passed_over() -> None:
    assert decode(Leg, {"length": 1, "foot": "left", "toes": [5]}) == Leg(length=1, foot="left")


def test_what_has_a_default_may_be_missing() -> None:
    assert decode(Dog, {key: value for key, value in JSON.items() if key != "coat"}).coat == "brown"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": 7}, "name: expected text, got 7"),
        ({"age": 2.5}, "age: expected a whole number, got 2.5"),
        ({"age": True}, "age: expected a whole number, got True"),
        ({"good": 1}, "good: expected true or false, got 1"),
        ({"name": None}, "name: expected text, got null"),
        ({"mood": "sad"}, "mood: expected calm or wild, got 'sad'"),
        ({"mood": ["calm"]}, "mood: expected calm or wild, got a list"),
        ({"legs": {}}, "legs: expected a list, got an object"),
        ({"legs": [JSON["legs"][0], 3]}, "legs[1]: expected an object, got 3"),
        ({"legs": [{"foot": None}]}, "legs[0]: length is missing"),
        ({"legs": [{}]}, "legs[0]: length is missing"),
        ({"by_name": []}, "by_name: expected an object, got a list"),
        ({"by_name": {"hind": {"length": "x", "foot": None}}}, "by_name.hind.length: expected a number, got 'x'"),
        ({"tail": "long"}, "tail: expected an object, got 'long'"),
        ({"cells": [[1], ["a", 0.5]]}, "cells[1][1]: expected text or a whole number or null, got 0.5"),
        ({"name": ["x" * 100]}, "name: expected text, got a list"),
        ({"age": "x" * 100}, f"age: expected a whole number, got '{'x' * 39}…"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(change: dict[str, Any], text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decode(Dog, JSON | change)
    assert str(caught.value) == text


@pytest.mark.parametrize("value", [None, [], "x", 3, True])
def test_what_is_no_object_is_no_document(value: object) -> None:
    with pytest.raises(DocumentError, match=r"^expected an object, got "):
        decode(Leg, value)


def test_what_is_no_part_of_a_document_is_not_written() -> None:
    with pytest.raises(TypeError, match="object is no part of a document"):
        encode({"x": object()})


def test_a_type_that_json_has_not_is_refused_when_it_is_first_used() -> None:
    class Odd(Document):
        """Odd."""

        what: set[str]

    with pytest.raises(TypeError, match="cannot be part of a document"):
        decode(Odd, {"what": []})


def test_the_schema_says_what_is_read() -> None:
    leg = {
        "description": "A leg.",
        "type": "object",
        "properties": {
            "length": {"type": "number"},
            "foot": {"type": ["string", "null"]},
            "shoe": {"type": ["string", "null"]},
        },
        "required": ["length", "foot"],
    }
    found = schema(Dog)
    assert found["$defs"] == {"Leg": leg}
    assert (found["title"], found["description"]) == ("Dog", "A dog, for tests.")
    assert found["required"] == [key for key in JSON if key != "coat"]
    assert found["properties"] == {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "good": {"type": "boolean"},
        "mood": {"enum": ["calm", "wild"]},
        "legs": {"type": "array", "items": {"$ref": "#/$defs/Leg"}},
        "by_name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Leg"}},
        "tail": {"anyOf": [{"$ref": "#/$defs/Leg"}, {"type": "null"}]},
        "cells": {"type": "array", "items": {"type": "array", "items": {"type": ["string", "integer", "null"]}}},
        "coat": {"type": "string"},
    }


def test_a_missing_key_that_may_be_null_is_null() -> None:
    assert decode(Dog, {**{k: v for k, v in JSON.items() if k != "tail"}, "legs": [{"length": 1.5}]}).legs == (LEG,)
