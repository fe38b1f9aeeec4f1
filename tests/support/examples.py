"""How many cases a law is tried with."""

from __future__ import annotations

import os

CI = bool(os.environ.get("CI"))


def examples(count: int) -> int:
    """Return so many for continuous integration, which tries the same cases each time, and a third for developers.

    They look for new cases each time, several times an hour.
    """
    return count if CI else max(10, count // 3)
