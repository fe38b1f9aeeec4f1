"""A script asks for `equalize`, which no kernel since Linux 2.6.23 has: nothing is balanced by packets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box

_LINE: Final = re.compile(r"\broute\b.*\bequalize\b")


def check(box: Box) -> Iterator[Finding]:
    """Find lines that ask for it."""
    found = [
        f"{path}:{number}: {line.strip()}"
        for path, text in box.scripts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if _LINE.search(line.partition("#")[0])
    ]
    if found:
        yield Finding(
            check="equalize",
            severity="warning",
            what="a script asks the kernel for `equalize`, which it does not have any more",
            evidence=tuple(found),
            consequence="the route chooses once for each pair of addresses, not for each packet",
            fix=Fix(how='remove the word; `algorithm = "per-packet"` of polywan does what it did'),
        )
