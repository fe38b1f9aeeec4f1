"""What becomes of a new connection that no uplink can serve: one line for each last resort of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from polywan.config.model.policy import LastResort
from polywan.core.ruleset.inputs import GOTO_UNMARKED


class Resort(NamedTuple):
    """A last resort: the nft verdict (nft(8)), and what `why` calls that."""

    verdict: str
    outcome: Literal["refused", "dropped", "main"]


RESORTS: Final[Mapping[LastResort, Resort]] = {
    "unreachable": Resort("reject with icmpx type host-unreachable", "refused"),
    "prohibit": Resort("reject with icmpx type admin-prohibited", "refused"),
    "blackhole": Resort("drop", "dropped"),
    "main": Resort(GOTO_UNMARKED, "main"),
    "throw": Resort(GOTO_UNMARKED, "main"),
}
"""By the words of ip-route(8)."""
