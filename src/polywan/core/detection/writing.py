"""Write the file for what was detected: as short as the vocabulary allows, with the reason for what is in it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from polywan.config.model.config import GlobalSettings
from polywan.config.model.numbering import MOST_NUMBERS, capacity, widened
from polywan.core.detection.candidates import Seen, Survey
from polywan.core.net import IPAddress
from polywan.core.words import listed, printable

Place: TypeAlias = tuple[str, str]
"""What an uplink is: its device, and its router where others share the device."""

_MANY: Final = 6
"""Uplinks from which on each has one line instead of a table of its own."""

_TAKEN: Final = frozenset(["other", "probe"])
_COMMENT: Final = 28
"""Column at which comments begin, where there is room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One uplink of the file."""

    name: str
    link: str
    gateway: IPAddress | None = None
    metered: str = ""
    why: str = ""

    @property
    def place(self) -> Place:
        """What tells it from others."""
        return self.link, "" if self.gateway is None else str(self.gateway)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the file is to say; `lans` are those that the box forwards for, none when it forwards for nobody."""

    uplinks: tuple[Entry, ...]
    lans: tuple[str, ...] = ()


def propose(
    found: Survey, accepted: Collection[str], *, forwarding: bool, names: Mapping[Place, str] | None = None
) -> Proposal:
    """Return what the file is to say.

    Args:
        found: what was seen.
        accepted: links that count as uplinks beside those that surely are.
        forwarding: the box forwards for the LANs behind it.
        names: of uplinks that have one already.
    """
    known = dict(names or {})
    used = {*known.values()}
    entries: list[Entry] = []
    for seen in found.seen:
        if seen.verdict != "uplink" and not (seen.verdict == "ask" and seen.link in accepted):
            continue
        for gateway in seen.gateways or (None,):
            place = (seen.link, "" if gateway is None else str(gateway))
            name = known.get(place) or _name(seen, used)
            used.add(name)
            entries.append(Entry(name=name, link=seen.link, gateway=gateway, metered=seen.metered, why=_why(seen)))
    lans = found.lans if forwarding else ()
    return Proposal(uplinks=tuple(entries[:MOST_NUMBERS]), lans=lans)


def _why(seen: Seen) -> str:
    return seen.why if not seen.gateways else ""


def _name(seen: Seen, used: Collection[str]) -> str:
    """Return a name that the file takes: the device's, as far as it is one."""
    legal = re.sub(r"[^A-Za-z0-9_-]", "_", seen.link)
    base = legal if legal[:1].isalpha() else f"wan{legal}"
    numbered = (f"{base}-{number}" for number in range(1, 10_000))
    single = [base] if len(seen.gateways) < 2 and base not in _TAKEN else []
    return next(name for name in (*single, *numbered) if name not in used)


def text(proposal: Proposal) -> str:
    """Return the file."""
    return "\n".join([*_heading(proposal), *_global(proposal), *_uplinks(proposal)]) + "\n"


def _heading(proposal: Proposal) -> Iterator[str]:
    yield "# Written by `polywan init`. After an edit: polywan check && polywan reload"
    yield "# All keys, with the reason for each default: docs/config.md"
    if sum(not entry.metered for entry in proposal.uplinks) > 1:
        yield "# Uplinks share evenly. Where lines differ, give each a weight, such as its Mbit/s: weight = 100"


def _global(proposal: Proposal) -> Iterator[str]:
    lines = []
    if proposal.lans:
        lines.append(_commented("forwarding = true", f"for {_few(proposal.lans)}"))
    mask = GlobalSettings().mark_mask
    if len(proposal.uplinks) > capacity(mask):
        mask = widened(mask, len(proposal.uplinks))
        lines.append(_commented(f"mark_mask = {mask:#x}", f"room for {capacity(mask)} uplinks"))
    if lines:
        yield from ("", "[global]", *lines)


def _few(words: tuple[str, ...]) -> str:
    return listed(words) if len(words) < 4 else f"{', '.join(words[:3])} and {len(words) - 3} more"


def _uplinks(proposal: Proposal) -> Iterator[str]:
    if len(proposal.uplinks) > _MANY:
        yield from ("", "[uplinks]")
        yield from (f"{entry.name} = {{ {', '.join(_keys(entry))} }}" for entry in proposal.uplinks)
        return
    for entry in proposal.uplinks:
        yield ""
        yield f"[uplinks.{entry.name}]"
        comments = {"interface": entry.why, "metered": f"{entry.metered}: it stands by until no other uplink is up"}
        for key in _keys(entry):
            yield _commented(key, comments.get(key.partition(" ")[0], ""))


def _keys(entry: Entry) -> Iterable[str]:
    yield f'interface = "{entry.link}"'
    if entry.gateway is not None:
        yield f'gateway = "{entry.gateway}"'
    if entry.metered:
        yield "metered = true"


def _commented(line: str, comment: str) -> str:
    return f"{line.ljust(_COMMENT)}  # {printable(comment)}" if comment else line
