"""One part of a bundle, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from polywan.doctor.reading.at_once import LIMIT


class Part(NamedTuple):
    """A file of the bundle.

    Attributes:
        name: its path.
        what: what is in it, for people.
        read: returns its text; raises PolywanError or OSError.
        limit: seconds after which it is left out.
    """

    name: str
    what: str
    read: Callable[[], str]
    limit: float = LIMIT
