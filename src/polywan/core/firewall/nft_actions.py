"""What a rule of nft writes into marks (libnftables-json(5), statement mangle)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    Action,
    ActionOther,
    Choose,
    MarkOf,
    Restore,
    Save,
    SetMark,
)
from polywan.core.firewall.nft_matches import mark_of, width


def compact(value: Any) -> str:
    """Return a part of a listing as text, not too long."""
    return json.dumps(value, separators=(",", ":"))[:200]


def written(about: Mapping[str, Any]) -> Action:
    """Return what is written into a mark; `ActionOther` for anything else."""
    whose, value = mark_of(about.get("key")), about.get("value")
    if whose is None:
        return ActionOther(compact(about.get("key")))
    if isinstance(value, int):
        return SetMark(whose, value)
    if isinstance(value, Mapping):
        if (copied := _copy(whose, value)) is not None:
            return copied
        if "map" in value and (chosen := _choice(whose, value["map"])) is not None:
            return chosen
        if "|" in value and (merged := _merged(whose, value["|"])) is not None:
            return merged
    return ActionOther(compact(about))


def _copy(whose: MarkOf, value: Mapping[str, Any]) -> Action | None:
    mask = ALL_MARK_BITS
    source: Any = value
    if "&" in value and isinstance(value["&"], list) and isinstance(value["&"][-1], int):
        source, mask = value["&"][0], value["&"][1]
    other = mark_of(source)
    if other is None:
        return None
    if other == whose:
        return SetMark(whose, 0, ALL_MARK_BITS & ~mask)
    return Restore(mask) if whose == "packet" else Save(mask)


def _merged(whose: MarkOf, parts: Any) -> Action | None:
    """Return ``mark & MASK | VALUE``, and ``mark | VALUE``."""
    if not isinstance(parts, list) or len(parts) != 2 or not isinstance(parts[1], int):
        return None
    kept = ALL_MARK_BITS
    source = parts[0]
    if isinstance(source, Mapping) and "&" in source and isinstance(source["&"][-1], int):
        source, kept = source["&"][0], source["&"][1]
    return SetMark(whose, parts[1], (ALL_MARK_BITS & ~kept) | parts[1]) if mark_of(source) == whose else None


def _choice(whose: MarkOf, about: Any) -> Action | None:
    key = about.get("key") if isinstance(about, Mapping) else None
    data = about.get("data") if isinstance(about, Mapping) else None
    pairs = data.get("set") if isinstance(data, Mapping) else None
    if not isinstance(key, Mapping) or not isinstance(pairs, list):
        return None
    for name, mode in (("numgen", None), ("jhash", "hash"), ("symhash", "hash")):
        if isinstance(key.get(name), Mapping):
            turn = mode or ("nth" if key[name].get("mode") == "inc" else "random")
            every = int(key[name].get("mod", 1))
            shares: dict[int, int] = {}
            for pair in pairs:
                if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int):
                    shares[pair[1]] = shares.get(pair[1], 0) + width(pair[0])
            return Choose(whose, turn, every, tuple(shares.items()))  # type: ignore[arg-type]  # one of three words
    return None
