"""Values that the daemon and its clients send each other.

To type checkers each is a frozen dataclass with keywords only (PEP 681). `dataclasses` would write and compile six
methods for every class, over a millisecond each at the start of every command; these share theirs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, dataclass_transform

NO_DEFAULT: Final = object()
"""Stands for the default of a field that has none."""


class Field:
    """A field of a document: the type that it was declared with, and what it is when nobody says (or `NO_DEFAULT`)."""

    def __init__(self, kind: Any, default: object) -> None:
        self.kind = kind
        self.default = default


@dataclass_transform(frozen_default=True, kw_only_default=True)
class DocumentType(type):
    """Makes a slot of every field that a document declares.

    Attributes:
        __fields__: the fields by name, in the order in which JSON has them.
    """

    __fields__: dict[str, Field]

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> DocumentType:
        """Make the class; a default goes with its field, where it would be in the way of the slot."""
        # A plain class knows its annotations in every version of Python; from 3.14 on the namespace does not (PEP 649).
        kinds: dict[str, Any] = dict(type(name, (), {**namespace}).__annotations__) if bases else {}
        fields = {key: Field(kind, namespace.pop(key, NO_DEFAULT)) for key, kind in kinds.items()}
        made = super().__new__(cls, name, bases, {**namespace, "__slots__": tuple(fields)})
        made.__fields__ = fields
        return made


class Document(metaclass=DocumentType):
    """A document, or part of one: it cannot be changed, and equals another that holds the same.

    Its module must not delay annotations (PEP 563): `codec` reads them as types.
    """

    __fields__: ClassVar[dict[str, Field]]

    def __init__(self, **values: Any) -> None:
        fields = type(self).__fields__
        for name, field in fields.items():
            value = values.pop(name, field.default)
            if value is NO_DEFAULT:
                raise TypeError(f"{type(self).__name__}: {name} is missing")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__}: there is no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be removed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__fields__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__fields__))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__fields__)
        return f"{type(self).__name__}({values})"
