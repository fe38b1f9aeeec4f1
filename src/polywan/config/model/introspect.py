"""The models seen as a vocabulary: which keys a table has, and what each may hold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, get_args, get_origin

from pydantic.fields import FieldInfo

from polywan.config.faults import Path
from polywan.config.kinds.addresses import BothWays, OneOrMany
from polywan.config.kinds.scalars import Kind, Rate
from polywan.config.model.base import Model


@cache
def keys_of(model: type[Model]) -> dict[str, FieldInfo]:
    """Return the fields by the key that stands in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def table_in(field: FieldInfo) -> type[Model] | None:
    """Return the model of the tables that a field holds, if it holds tables."""
    found = (a for a in _parts(field.annotation) if isinstance(a, type) and issubclass(a, Model))
    return next(found, None)


def expected_in(field: FieldInfo) -> str:
    """Say what a field may hold, in the words of the messages."""
    marks = [*field.metadata, *_parts(field.annotation)]
    kind = next((m for m in marks if isinstance(m, Kind)), None)
    if any(isinstance(m, BothWays) for m in marks):
        return f"{Rate().expected}, or a table {{down = …, up = …}}"
    if kind is None:
        return "a table"
    return f"{kind.expected}, or a list of these" if any(isinstance(m, OneOrMany) for m in marks) else kind.expected


def model_at(model: type[Model], path: Path) -> type[Model] | None:
    """Return the model of the table at a path that starts in a table of `model`; None when there is none."""
    found: type[Model] | None = model
    for part in path:
        if found is None:
            return None
        if isinstance(part, str):
            field = keys_of(found).get(part)
            found = table_in(field) if field else None
    return found


def _parts(annotation: object) -> Iterator[object]:
    """Yield an annotation, what it is made of, and the metadata within, outermost first."""
    yield annotation
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from metadata
        yield from _parts(inner)
    else:
        for argument in get_args(annotation):
            yield from _parts(argument)
