"""Compare a file that is there with the one that would be written: what either has that the other has not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import unified_diff

from polywan.config import Config, Uplink
from polywan.core.detection.candidates import Seen, Survey
from polywan.core.detection.writing import Place
from polywan.core.net import Family
from polywan.core.words import counted, listed
from polywan.core.world.observed import Observed
from polywan.core.world.shared_device import gateway_of


def names(config: Config) -> dict[Place, str]:
    """Return what a file calls its uplinks, so that the new text calls them the same."""
    count = Counter(uplink.interface for uplink in config.uplinks.values())
    found: dict[Place, str] = {}
    for name, uplink in config.uplinks.items():
        gateway = gateway_of(uplink, Family.V4)
        found.setdefault((uplink.interface, "" if gateway is None else str(gateway)), name)
        if count[uplink.interface] == 1:
            found[uplink.interface, ""] = name
    return found


def difference(existing: str, proposed: str, name: str) -> str:
    """Return how a file would change, comments and empty lines left out; empty when it would say the same."""
    before, after = _said(existing), _said(proposed)
    return "\n".join(unified_diff(before, after, name, "what `polywan init` would write", lineterm=""))


def _said(text: str) -> list[str]:
    lines = (line.rstrip() for line in text.splitlines())
    kept = (line for line in lines if line and not line.lstrip().startswith("#"))
    # A value with # in it is rare, and only shown.
    return [line.partition("  #")[0].rstrip() for line in kept]


def remarks(existing: Config, proposed: Config, found: Survey, observed: Observed) -> Iterator[str]:
    """Yield what the difference means: uplinks that one of them lacks, and what else the present file says."""
    theirs = {uplink.interface for uplink in existing.uplinks.values()}
    ours = {uplink.interface for uplink in proposed.uplinks.values()}
    if new := [uplink.interface for uplink in proposed.uplinks.values() if uplink.interface not in theirs]:
        yield f"not in your file: {listed(list(dict.fromkeys(new)))}"
    seen = {each.link: each for each in found.seen}
    for name, uplink in existing.uplinks.items():
        if uplink.interface not in ours:
            yield f"only in your file: uplink {name}, {_reason(uplink, seen, observed)}"
    if extra := list(_beyond(existing, proposed)):
        yield f"your file also says: {listed(extra)}"


def _reason(uplink: Uplink, seen: Mapping[str, Seen], observed: Observed) -> str:
    if uplink.interface not in observed.links:
        return f"whose device {uplink.interface} is not here at present"
    known = seen.get(uplink.interface)
    return f"whose device {uplink.interface} was not taken for one" + (f": {known.why}" if known else "")


def _beyond(existing: Config, proposed: Config) -> Iterator[str]:
    """Yield what people have added to a file; it is theirs to say."""
    written = Counter(
        key
        for name, uplink in existing.uplinks.items()
        for key in sorted(uplink.model_fields_set - {"interface"})
        if name not in proposed.uplinks or key not in proposed.uplinks[name].model_fields_set
    )
    yield from (f"{key} of {counted(number, 'uplink')}" for key, number in written.items())
    if existing.rules:
        yield counted(len(existing.rules), "rule")
    if existing.policies:
        yield f"{len(existing.policies)} polic{'y' if len(existing.policies) == 1 else 'ies'}"
    for part in ("health", "hooks"):
        if part in existing.model_fields_set and getattr(existing, part).model_fields_set:
            yield f"[{part}]"
