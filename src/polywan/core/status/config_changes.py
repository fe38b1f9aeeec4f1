"""What a new configuration changes against the one before, in words: the answer to `reload`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from polywan.config import Config, SteeringRule, Uplink
from polywan.core.words import counted
from polywan.core.world.shared_device import inherited, places

_LONGEST = 8


def changes(before: Config, after: Config) -> tuple[str, ...]:
    """Return what is different, in the order of the file; nothing when both say the same.

    An uplink is its device, and its router where others have that device: one with just another name is told as that.
    """
    lines = list(_all(before, after))
    more = len(lines) - _LONGEST
    return (*lines[:_LONGEST], *((f"{more} more changes",) if more > 0 else ()))


def _all(before: Config, after: Config) -> Iterator[str]:
    was = inherited(places(before), after, {})
    names = {name: old for old, name in was.items()}
    for name, uplink in after.uplinks.items():
        old = names.get(name)
        if old is None:
            instead = before.uplinks.get(name)
            yield f"{name} is new" if instead is None else _instead(name, uplink, instead)
            continue
        if old != name:
            yield f"{old} is now called {name}"
        keys = [key for key in _keys(before.uplinks[old], uplink) if key != "health"]
        if keys:
            yield f"{', '.join(keys)} changed for {name}"
    yield from (f"{name} is removed" for name in before.uplinks if name not in was and name not in after.uplinks)
    yield from _health(before, after, names)
    yield from _policies(before, after)
    yield from _rules(before.rules, after.rules)
    if keys := _keys(before.global_, after.global_):
        yield f"{', '.join(keys)} of [global] changed"
    if keys := _keys(before.hooks, after.hooks):
        yield f"{', '.join(keys)} of [hooks] changed"


def _instead(name: str, now: Uplink, before: Uplink) -> str:
    if now.interface != before.interface:
        return f"{name} is now {now.interface} instead of {before.interface}"
    return f"{name} has another gateway or source: it is another uplink"


def _health(before: Config, after: Config, names: Mapping[str, str]) -> Iterator[str]:
    found: dict[tuple[str, ...], list[str]] = {}
    for name in after.uplinks:
        if name in names and (keys := _keys(before.health_of(names[name]), after.health_of(name))):
            found.setdefault(tuple(keys), []).append(name)
    for changed, uplinks in found.items():
        yield f"health settings changed for {', '.join(uplinks)} ({', '.join(changed)})"


def _policies(before: Config, after: Config) -> Iterator[str]:
    known = before.policies
    for name, policy in after.policies.items():
        if name not in known:
            yield f"policy {name} is new"
        elif changed := _keys(known[name], policy):
            yield f"{', '.join(changed)} changed for policy {name}"
    yield from (f"policy {name} is removed" for name in known if name not in after.policies)


def _rules(before: tuple[SteeringRule, ...], after: tuple[SteeringRule, ...]) -> Iterator[str]:
    if len(before) != len(after):
        yield f"{counted(len(after), 'rule')} instead of {len(before)}"
        return
    different = [str(place) for place, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b]
    if different:
        yield f"rule{'s' * (len(different) > 1)} {', '.join(different)} changed"


def _keys(before: BaseModel, after: BaseModel) -> list[str]:
    """Return the keys of the file whose values differ."""
    fields = type(after).model_fields
    return [field.alias or key for key, field in fields.items() if getattr(before, key) != getattr(after, key)]
