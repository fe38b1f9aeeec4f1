"""Documents as JSON, and what JSON they are: one walk over the types of their fields, made once for each class.

What reads is open to other versions: unknown keys are passed over, and a field may be missing that has a default, or
that may be null. A field that is None by default is left out while it is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from polywan.api.document import NO_DEFAULT, Document, DocumentType

Doc = TypeVar("Doc", bound=Document)
Defs: TypeAlias = dict[str, Any]
"""Schemas of the documents inside a document, by name."""

_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}
_WORDS: Final = {str: "text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}


class DocumentError(ValueError):
    """Something is no such document.

    Attributes:
        path: keys and places that lead to what is wrong, the innermost first.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[str | int] = []

    def __str__(self) -> str:
        where = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in reversed(self.path))
        return f"{where.removeprefix('.')}: {self.args[0]}" if where else str(self.args[0])


class _Kind:
    """How a type is read, and its JSON Schema.

    Attributes:
        read: returns the value, or raises DocumentError.
        schema: returns the schema; puts those of documents inside into its argument.
        plain: the JSON types when it is one value, else nothing.
        nullable: None is such a value.
    """

    def __init__(
        self,
        read: Callable[[Any], Any],
        schema: Callable[[Defs], dict[str, Any]],
        plain: frozenset[type] = frozenset(),
        *,
        nullable: bool = False,
    ) -> None:
        self.read = read
        self.schema = schema
        self.plain = plain
        self.nullable = nullable or NoneType in plain


def encode(value: object) -> Any:
    """Return a document as lists, dictionaries and plain values, as `json` takes them."""
    if isinstance(value, Document):
        found = ((name, getattr(value, name), field.default) for name, field in type(value).__fields__.items())
        return {name: encode(held) for name, held, default in found if held is not None or default is not None}
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: encode(held) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [encode(held) for held in value]
    raise TypeError(f"{type(value).__name__} is no part of a document")


def decode(kind: type[Doc], value: object) -> Doc:
    """Return the document that JSON holds.

    Raises:
        DocumentError: it is none of this kind; the text says where, and what was expected.
    """
    document: Doc = _kind_of(kind).read(value)
    return document


def schema(kind: type[Document]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a kind of document."""
    defs: Defs = {}
    _kind_of(kind).schema(defs)
    whole = defs.pop(kind.__name__)
    parts = {"$defs": dict(sorted(defs.items()))} if defs else {}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind.__name__, **whole, **parts}


def definitions(kinds: Iterable[type[Document]]) -> Defs:
    """Return the schemas of documents, and of those inside them, by name; they refer to each other by `#/$defs/`."""
    defs: Defs = {}
    for kind in kinds:
        _kind_of(kind).schema(defs)
    return defs


def types_of(kind: Any) -> frozenset[type]:
    """Return the types that a plain value of this kind has in JSON."""
    return _kind_of(kind).plain


@cache
def _kind_of(of: Any) -> _Kind:
    origin, arguments = get_origin(of), get_args(of)
    if isinstance(of, DocumentType):
        return _document(of)
    if of in _NAMES:
        return _plain([of])
    if origin is Literal:
        return _choice(arguments)
    if origin in (Union, UnionType):
        kinds = [_kind_of(part) for part in arguments]
        if all(kind.plain for kind in kinds):
            return _plain(arguments)
        (inner,) = (kind for kind in kinds if not kind.nullable)
        return _nullable(inner)
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return _list(_kind_of(arguments[0]))
    if origin is Mapping and arguments[0] is str:
        return _map(_kind_of(arguments[1]))
    raise TypeError(f"{of} cannot be part of a document")


def _plain(types: Sequence[type]) -> _Kind:
    names = [_NAMES[each] for each in types]
    said = " or ".join(_WORDS[each] for each in types)
    allowed = frozenset(types) | ({int} if float in types else frozenset())

    def read(value: Any) -> Any:
        if type(value) not in allowed:
            raise DocumentError(f"expected {said}, got {_shown(value)}")
        return value

    return _Kind(read, lambda _: {"type": names[0] if len(names) == 1 else names}, allowed)


def _choice(values: tuple[str, ...]) -> _Kind:
    def read(value: Any) -> Any:
        if value not in values:
            raise DocumentError(f"expected {' or '.join(values)}, got {_shown(value)}")
        return value

    return _Kind(read, lambda _: {"enum": list(values)})


def _nullable(inner: _Kind) -> _Kind:
    return _Kind(
        lambda value: None if value is None else inner.read(value),
        lambda defs: {"anyOf": [inner.schema(defs), {"type": "null"}]},
        nullable=True,
    )


def _list(inner: _Kind) -> _Kind:
    def read(value: Any) -> tuple[Any, ...]:
        _demand(list, "a list", value)
        # Tens of thousands of short lists of plain values are read at once: connections.
        if inner.plain and inner.plain.issuperset(map(type, value)):
            return tuple(value)
        return tuple(_at(place, inner, held) for place, held in enumerate(value))

    return _Kind(read, lambda defs: {"type": "array", "items": inner.schema(defs)})


def _map(inner: _Kind) -> _Kind:
    def read(value: Any) -> dict[str, Any]:
        _demand(dict, "an object", value)
        return {key: _at(key, inner, held) for key, held in value.items()}

    return _Kind(read, lambda defs: {"type": "object", "additionalProperties": inner.schema(defs)})


def _document(of: DocumentType) -> _Kind:
    kinds = {name: _kind_of(field.kind) for name, field in of.__fields__.items()}
    required = [name for name, field in of.__fields__.items() if field.default is NO_DEFAULT]
    nulls = {name: None for name in required if kinds[name].nullable}

    def read(value: Any) -> Any:
        _demand(dict, "an object", value)
        there = {name: _at(name, kind, value[name]) for name, kind in kinds.items() if name in value}
        if lacking := [name for name in required if name not in there and name not in nulls]:
            raise DocumentError(f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing")
        return of(**{**nulls, **there})

    def schema_of(defs: Defs) -> dict[str, Any]:
        if of.__name__ not in defs:
            defs[of.__name__] = {}
            defs[of.__name__] |= {
                "description": (of.__doc__ or "").partition("\n")[0],
                "type": "object",
                "properties": {name: kind.schema(defs) for name, kind in kinds.items()},
                "required": required,
            }
        return {"$ref": f"#/$defs/{of.__name__}"}

    return _Kind(read, schema_of)


def _at(place: str | int, kind: _Kind, value: Any) -> Any:
    try:
        return kind.read(value)
    except DocumentError as error:
        error.path.append(place)
        raise


def _demand(wanted: type, word: str, value: Any) -> None:
    if type(value) is not wanted:
        raise DocumentError(f"expected {word}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """Show a value that is not what was expected, a long one by its kind alone."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
