"""Say what was masked, without saying any of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.core.masking.masking import HOST, MAIL, NAMES, USERS, Masked
from polywan.core.masking.spelled import Kind
from polywan.core.words import counted

SECRETS: Final = "secrets"

_BY: Final = {
    SECRETS: "masked-1, masked-2 and so on; the same secret has the same number",
    Kind.ADDRESS4: "addresses in 240.0.0.0/4, in the order and in the networks of the true ones; the last byte is true",
    Kind.ADDRESS6: "addresses in 3fff::/20, likewise; the last two bytes are true",
    Kind.HARDWARE: "addresses that end in 00:00:01, 00:00:02 and so on; the first three bytes, the maker's, are true",
    NAMES: HOST,
    MAIL: "user-1@example.invalid and so on",
    USERS: "/home/user-1 and so on",
}
"""What stands for each kind, in the order in which they are told."""

_STAYS: Final = """
Not masked:
  addresses without an owner (private, link-local, shared, multicast, documentation) and those of public resolvers
  prefixes that hold very many addresses (/8 and shorter, /20 and shorter in IPv6)
  names of uplinks, policies, devices and users, domains, and the other parts of URLs
  numbers of ports, marks and processes, times, and what programs said in their own words
"""


def different(masked: Masked) -> dict[str, int]:
    """Return how many different values of each kind were masked; kinds without any are left out."""
    counts = {kind: tally.different for kind, tally in masked.tallies.items()}
    counts[SECRETS] = len({(place.part, place.line, place.key) for place in masked.secrets})
    return {str(kind): counts[kind] for kind in _BY if counts.get(kind)}


def listing(masked: Masked) -> str:
    """Return the list for people: how many of each kind, what stands for them, and where they were."""
    return "\n".join(("What was masked, and where. The values are nowhere in this bundle.\n", *_lines(masked), _STAYS))


def _lines(masked: Masked) -> Iterator[str]:
    counts = different(masked)
    for kind, stands in _BY.items():
        if str(kind) not in counts:
            yield f"{kind}: none"
            continue
        yield f"{kind}: {counts[kind]}, replaced by {stands}"
        if kind == SECRETS:
            yield from (f"  {place.part}:{place.line} ({place.key})" for place in masked.secrets)
        else:
            yield from (f"  {part}: {counted(times, 'time')}" for part, times in masked.tallies[kind].places.items())
    if masked.shared:
        yield f"{counted(masked.shared, 'address')} share stand-ins, because there are too many networks"
