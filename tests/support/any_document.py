"""Any document of a kind: whatever its fields may hold, as `hypothesis` draws it."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st

from polywan.api.document import DocumentType

HOSTILE = ("", "a b", 'q"uote', "back\\slash", "line\nline", "{brace},=", "# EOF", "e\u0301\u2028", "\ud800", "\x00\r")
"""Texts that formats of lines and quotes are broken by."""

TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(), max_size=8)
_PLAIN: Mapping[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(),
    NoneType: st.none(),
}


def any_document(kind: DocumentType) -> st.SearchStrategy[Any]:
    """Return a strategy for documents of a kind: as JSON may hold them, sensible or not."""
    return st.builds(kind, **{name: _values(field.kind) for name, field in kind.__fields__.items()})


def _values(kind: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, DocumentType):
        return any_document(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([_values(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    assert origin is Mapping
    return st.dictionaries(TEXTS, _values(arguments[1]), max_size=2)
