"""Keys of caches that stand for one object, and not for all that equal it."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Same(Generic[T]):
    """Holds a value and equals whatever holds the same object: to compare all that is in it would take longer.

    While a cache has it as a key, the object stays, so that its identity is not given to another one.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value
