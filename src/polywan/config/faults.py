"""Faults before they are placed in a file, and the words in which values are shown to the user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, time
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Where a value sits: table keys as text, positions in lists as numbers."""

_BARE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_LONGEST: Final = 48
_LARGEST: Final = 1 << 64

_SYNONYMS: Final = {
    "dev": "interface",
    "device": "interface",
    "iface": "interface",
    "ifname": "interface",
    "iif": "in_interface",
    "gw": "gateway",
    "nexthop": "gateway",
    "masquerade": "nat",
    "cost": "metered",
    "src": "from",
    "source_address": "from",
    "dst": "to",
    "dest": "to",
    "destination": "to",
    "dport": "port",
    "ports": "port",
    "sport": "source_port",
    "proto": "protocol",
    "track_ip": "targets",
    "checkip": "targets",
    "members": "tiers",
    "use_policy": "policy",
    "fwmark_mask": "mark_mask",
    "mmx_mask": "mark_mask",
    "wans": "uplinks",
    "interfaces": "uplinks",
    "providers": "uplinks",
}
"""Words of other tools for the same thing; difflib alone would not find them."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong, by its path; the loader adds file and line.

    Attributes:
        other: a second place; the loader ends the message with its name, file and line.
    """

    path: Path
    message: str
    hint: str = ""
    other: Path = ()


def escaped(text: str) -> str:
    """Show text on one line, shortened, with everything unprintable escaped; no quotes around it."""
    cut = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(c if c.isprintable() and c not in '"\\' else _escape(c) for c in cut)


def _escape(char: str) -> str:
    return f"\\{char}" if char in '"\\' else char.encode("unicode_escape").decode("ascii")


def shown(value: object) -> str:
    """Name a value of the file the way a person would: ``"text"``, ``5``, ``true``, ``a list``."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'"{escaped(value)}"'
        case int():
            # Python refuses to print integers of thousands of digits, which hexadecimal TOML may hold.
            return str(value) if -_LARGEST < value < _LARGEST else "a huge number"
        case float():
            return repr(value)
        case list() | tuple():
            return "an empty list" if not value else "a list"
        case dict():
            return "a table"
        case date() | time():
            return "a date or time"
        case _:
            return f"a {type(value).__name__}"


def dotted(path: Path) -> str:
    """Write a path as TOML keys: ``rules[2].port``, ``uplinks."my link".weight``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part and len(part) <= _LONGEST and _BARE.issuperset(part)
        text += ("." if text else "") + (part if bare else f'"{escaped(part)}"')
    return text


def closest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean …" for a word that resembles a known one, else nothing."""
    from difflib import get_close_matches

    names = {name.lower(): name for name in known}
    synonym = _SYNONYMS.get(word.lower())
    if synonym in names:
        return f'did you mean "{synonym}"?'
    # Longer words cannot resemble a name, and comparing them would cost time.
    close = get_close_matches(word.lower(), names, n=1) if len(word) <= _LONGEST else []
    return f'did you mean "{names[close[0]]}"?' if close else ""


def absent(what: str, name: str, known: Iterable[str]) -> str:
    """Say that there is nothing of that name, and what may have been meant."""
    return "; ".join(filter(None, (f"there is no {what} {shown(name)}", suggest(name, known))))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a word that is not among the known ones: the closest one, else all of them."""
    names = sorted(known)
    if not names:
        return ""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return closest(word, names) or "known here: " + ", ".join(names[:20]) + more
