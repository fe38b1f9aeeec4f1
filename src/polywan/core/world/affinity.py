"""Clients that keep their uplink, as the kernel remembers them: one map for each policy and family."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from polywan.core.net import Family, IPAddress

_NAME: Final = re.compile(r"affinity_(?P<family>[46])_(?P<policy>[^.]+)(\..*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityEntry:
    """A client, or a client and a server together, and the uplink that it keeps.

    Attributes:
        map: name of the map in our table that it was found in.
        server: None when the client keeps its uplink whatever it talks to.
        mark: the uplink's.
        expires: seconds until it is forgotten unless it opens another connection.
    """

    map: str
    family: Family
    policy: str
    client: IPAddress
    server: IPAddress | None
    mark: int
    expires: float


def map_of(name: str) -> tuple[Family, str] | None:
    """Return family and policy of a map of ours by its name; None when it is no map of clients."""
    found = _NAME.fullmatch(name)
    return (Family(int(found["family"])), found["policy"]) if found else None
