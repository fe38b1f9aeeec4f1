"""What the parts of polywan's table are built from, and the words that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from polywan.config import Config
from polywan.core.marks import Numbers
from polywan.core.net import Family, MarkLayout
from polywan.core.policy.selection import Selection
from polywan.core.ruleset.model import NftRule
from polywan.core.world.lookups import NOTHING, Lookups
from polywan.core.world.observed import Observed
from polywan.core.world.paths import Reach, UplinkFamily

ROOM: Final = "size 512;"
"""Declared size of sets and maps: with it the kernel takes its faster kind of hash (nft(8), set types)."""

ADDRESSES: Final = 4096
"""Addresses for which there is always room; with more of them the room is a power of two."""

REFUSAL: Final = {
    "unreachable": "reject with icmpx type host-unreachable",
    "prohibit": "reject with icmpx type admin-prohibited",
    "blackhole": "drop",
}
"""How a connection that no uplink can serve is refused: the words of ip-route(8) and their nft equivalents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesetInput:
    """What the table depends on.

    Attributes:
        policy_marks: numbers of the policies that carry a mark of their own (`select.marked_policies`).
        retired: marks that are no longer given out; connections that still carry them are cut.
        own: IPv4 addresses of this box, as far as others can reach them.
        main_links: links by which main's own default leaves, per family; where a socket that was bound to
            its uplink cannot be told from one that was not.
        unbound_source: the box's own TCP that is bound to nothing has a source that no uplink has
            (`core/routing/first_route.py`).
        words: marks with bits of ours that policy rules of others compare as a whole, per family.
        lookups: what rules refer to outside of the file.
        observed: the world.
        reach: how each uplink can be used.
    """

    config: Config
    layout: MarkLayout
    numbers: Mapping[str, Numbers]
    selection: Selection
    policy_marks: Mapping[str, Numbers] = field(default_factory=dict)
    retired: frozenset[int] = frozenset()
    own: frozenset[IPv4Address] = frozenset()
    main_links: Mapping[Family, frozenset[str]]
    unbound_source: bool = False
    words: Mapping[Family, tuple[int, ...]] = field(default_factory=dict)
    lookups: Lookups = NOTHING
    observed: Observed
    reach: Mapping[UplinkFamily, Reach]


GOTO_UNMARKED: Final = "goto unmarked"
"""Verdict that leaves a packet alone: the chain takes off the mark that `classify` asked its question with."""


def words_of(inputs: RulesetInput) -> tuple[int, ...]:
    """Return the whole-word marks of others that have bits of ours, of both families."""
    return tuple(sorted({word for words in inputs.words.values() for word in words}))


def restored(layout: MarkLayout, words: Iterable[int]) -> tuple[NftRule, ...]:
    """Return the rules that put back what our bits have taken from a mark of others, once these are off."""
    return tuple(
        NftRule(f"meta mark {word & layout.keep:#010x} meta mark set {word:#010x}", "another program's mark, whole")
        for word in words
    )


def room_for(count: int) -> str:
    """Return the declared size of a set of addresses, so large that it rarely has to change."""
    return f"size {max(ADDRESSES, 1 << (count - 1).bit_length())};"
