"""A script asks for `equalize`: no kernel since 2.6.23 spreads packets so, and ip(8) now refuses the whole command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box
from polywan.doctor.facts.scripts import lines

_WORD: Final = re.compile(r"\bip\b.*\b(?:ro|route)\b.*\sequalize\b")


def check(box: Box) -> Iterator[Finding]:
    """Find the word in routes of scripts."""
    found = [line for line in lines(box.scripts) if _WORD.search(line.text)]
    if found:
        yield Finding(
            check="equalize",
            severity="warning",
            what=f"{found[0].path} asks for a route with `equalize`, which no longer exists",
            evidence=tuple(map(str, found)),
            consequence="ip refuses the command, and the route is missing after the next boot or dial; "
            "older versions of ip accept the word, and the kernel ignores it",
            fix=Fix(
                how="delete the word: each connection then stays on one line; "
                "net.ipv4.fib_multipath_hash_policy = 1 spreads connections to one server, too"
            ),
        )
