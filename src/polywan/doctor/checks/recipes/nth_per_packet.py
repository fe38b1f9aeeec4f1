"""A choice is made for every packet that is still NEW, instead of once for each connection.

A repeated SYN, and a second datagram before the first answer, are NEW again: they get the next mark, leave by another
link with another source address, and the connection is lost or slow.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix, Step
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes.choices import Choice, choices, guarded, tool


def check(box: Box) -> Iterator[Finding]:
    """Find choices that connections with a mark meet as well."""
    open_to_all = [choice for choice in choices(box) if not guarded(choice)]
    if open_to_all:
        yield Finding(
            check="nth-per-packet",
            severity="warning",
            what="rules choose a link again for every packet of a connection that has no answer yet",
            evidence=tuple(choice.text for choice in open_to_all),
            consequence="when the first packet is lost, the repeated one leaves by another link: connections take "
            "seconds to open, and UDP without an answer is spread over all links",
            fix=_fix(open_to_all),
        )


def _fix(found: list[Choice]) -> Fix:
    steps = tuple(step for choice in found if (step := _step(choice)) is not None)
    how = "choose only where the connection has no mark yet"
    if len(steps) < len(found):
        how += ": begin the rule with `ct mark 0` (nft)"
    return Fix(how=f"{how}; change the script that loads the rules as well", steps=steps)


def _step(choice: Choice) -> Step | None:
    """Replace the rule by itself with one condition more."""
    if choice.table.program == "nftables":
        return None
    try:
        words = shlex.split(choice.rule.text)[2:]
        at = next(n for n, word in enumerate(words) if word in ("-j", "-g"))
    except (ValueError, StopIteration):
        return None
    unmarked = ("-m", "connmark", "--mark", "0x0")
    place = ("-t", choice.table.name, "-R", choice.chain.name, str(choice.number))
    return Step(command=(tool(choice.table), *place, *words[:at], *unmarked, *words[at:]))
