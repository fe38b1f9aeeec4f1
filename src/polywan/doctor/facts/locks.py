"""Lock files that scripts speak of."""

from __future__ import annotations

from typing import NamedTuple


class Lock(NamedTuple):
    """A file that is there.

    Attributes:
        path: where it is.
        script, line: who speaks of it, with the line's number, and how.
        since: Unix seconds when it was made.
        held: a process has a lock on it (flock(2)).
        waited_for: the script waits until it is gone.
    """

    path: str
    script: str
    line: str
    since: float
    held: bool
    waited_for: bool
