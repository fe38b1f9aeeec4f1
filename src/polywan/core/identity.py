"""Keys of caches that stand for one object, and not for all that equal it; results that are made once for equal inputs.

Most decisions change little, so that most of their parts would be built again from the same objects. Whatever is handed
out twice is a value: nobody changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import wraps
from operator import is_
from typing import Final, Generic, ParamSpec, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")

_MOST_KEYS: Final = 4096
"""Keys that a result is kept for: far more than there are uplinks, whose names they are; then all are made again."""

_FORGET: Final[list[Callable[[], None]]] = []


def forget() -> None:
    """Forget every result, as in a process that has just started: what is decided must not depend on them."""
    for each in _FORGET:
        each()


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


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Have a pure function return its last two results again for arguments that equal those it made them from.

    Nothing is hashed, and equal parts that are the same object take no time: a tuple of hundreds of values is compared
    in some microseconds.
    """
    last: tuple[tuple[object, T], ...] = ()

    @wraps(function)
    def recalled(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal last
        asked = (args, kwargs)
        before = last
        # What is kept are the newest of equal arguments, so that the next comparison is one of the same objects.
        for place, (known, result) in enumerate(before):
            if known == asked:
                last = ((asked, result), *(other for at, other in enumerate(before) if at != place))
                return result
        result = function(*args, **kwargs)
        last = ((asked, result), *before[:1])
        return result

    def clear() -> None:
        nonlocal last
        last = ()

    _FORGET.append(clear)
    return recalled


class PerKey(Generic[K, T]):
    """The last result for each key, with the objects that it was made from. Made once, with the module."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[K, tuple[tuple[object, ...], T]] = {}
        _FORGET.append(self._known.clear)

    def get(self, key: K, *inputs: object) -> T | None:
        """Return the result, if it was made from the very same objects."""
        known = self._known.get(key)
        return known[1] if known is not None and all(map(is_, known[0], inputs)) else None

    def settled(self, key: K, value: T) -> T:
        """Return the value that the key had, if this one equals it: then it stays the same object."""
        known = self.get(key)
        return known if known is not None and known == value else self.put(key, value)

    def all_settled(self, values: Mapping[K, T]) -> dict[K, T]:
        """Do so for all keys there are, and keep nothing of others: a name may come from what is in the value."""
        found = {key: self.settled(key, value) for key, value in values.items()}
        self._known.clear()
        self._known.update((key, ((), value)) for key, value in found.items())
        return found

    def put(self, key: K, result: T, *inputs: object) -> T:
        """Keep a result; return it."""
        if len(self._known) >= _MOST_KEYS:
            self._known.clear()
        self._known[key] = (inputs, result)
        return result
