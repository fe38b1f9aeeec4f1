"""What a metric is: a name, a type, a sentence, and how its values are read from the status document."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from polywan.api.status import Status

UNITS: Final = ("bytes_per_second", "seconds", "bytes", "ratio")
"""Units that a name may end with; all are base units, as Prometheus wants them."""


class Kind(StrEnum):
    """Types of OpenMetrics that we use."""

    GAUGE = "gauge"
    COUNTER = "counter"
    STATESET = "stateset"
    INFO = "info"
    HISTOGRAM = "histogram"


class Point(NamedTuple):
    """A value with its labels, in the order of the metric's.

    Attributes:
        value: a number; of a state set the state that holds; of an info nothing.
        buckets: of a histogram, whose value is the sum: upper bounds, each with what is below it, up to all.
    """

    labels: tuple[str, ...]
    value: float | str | None
    buckets: tuple[tuple[float, int], ...] = ()


Read: TypeAlias = Callable[[Status], Iterable[Point]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A family of values with one name.

    Attributes:
        name: without what its type appends (`_total`, `_info`).
        help: what it says, for people, in one sentence.
        labels: their names.
        read: returns its values.
        states: what a state set may be; other states that are met are added.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    read: Read
    states: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit that the name ends with, or nothing."""
        return next((unit for unit in UNITS if self.name.endswith(f"_{unit}")), "")

    @property
    def sample(self) -> str:
        """The name of its values; those of a histogram have further endings."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")


def seconds(milliseconds: float | None) -> float | None:
    """Return milliseconds as seconds."""
    return None if milliseconds is None else milliseconds / 1000


def moment(text: str | None) -> float | None:
    """Return Unix seconds of a moment in ISO 8601; None where it is none."""
    try:
        found = datetime.fromisoformat(text or "")
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
