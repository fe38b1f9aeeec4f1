"""The last configurations in force, as values: ten of them, and no more text than a small disk has room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from polywan.api.trials import Past
from polywan.core.status.times import iso
from polywan.core.trial.texts import digest_of_all
from polywan.core.versions import VERSION_KEY, Migration

How: TypeAlias = Literal["start", "reload", "trial", "rollback"]
"""What brought a configuration into force."""

MOST_KEPT: Final = 10
"""Configurations that are kept."""

TEXT_KEPT: Final = 4 << 20
"""Characters of text that are kept of all of them: a file has a few hundred, and one with 254 uplinks 100 kB. A file
may have 16 MiB, and the disk of a small router has no room for ten of these."""


def _without_version(_: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ValueError("it says no version")  # no polywan has written that


HISTORY_MIGRATIONS: Final[tuple[Migration, ...]] = (_without_version,)
"""For `versions.upgraded`: a new version of the document is a further one, with files in tests/data/state."""

_MOST_CHANGES: Final = 20
_LATEST: Final = 253_370_764_800.0
"""The year 9999, up to which Python has dates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A configuration that was in force, or is.

    Attributes:
        time: since when, Unix seconds.
        user: who asked for it; "polywan" when nobody did.
        how: what brought it into force.
        changes: what was different from the one before it, for people.
        digest: tells its texts from others.
        files: its texts; None when they were too large to be kept.
    """

    time: float
    user: str
    how: How
    changes: tuple[str, ...]
    digest: str
    files: Mapping[str, str] | None


def is_newest(entries: Sequence[Entry], digest: str) -> bool:
    """True for the digest of the configuration that the history, newest first, says is in force."""
    return bool(entries) and entries[0].digest == digest


def added(entries: Sequence[Entry], new: Entry) -> tuple[Entry, ...]:
    """Return the history, newest first, with one more: the same texts again add nothing, and the oldest go."""
    if is_newest(entries, new.digest):
        return tuple(entries)
    room, found = TEXT_KEPT, []
    for entry in (new, *entries)[:MOST_KEPT]:
        size = sum(map(len, entry.files.values())) if entry.files is not None else 0
        fits = size <= room
        room -= size if fits else 0
        found.append(entry if fits else replace(entry, files=None))
    return tuple(found)


def shown(entries: Sequence[Entry]) -> tuple[Past, ...]:
    """Return the history as a document."""
    return tuple(
        Past(number=n, time=iso(e.time), user=e.user, how=e.how, changes=e.changes, kept=e.files is not None)
        for n, e in enumerate(entries)
    )


def stored(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the history as JSON has it."""
    return {
        VERSION_KEY: len(HISTORY_MIGRATIONS),
        "entries": [
            {
                "time": e.time,
                "user": e.user,
                "how": e.how,
                "changes": list(e.changes),
                "files": None if e.files is None else dict(e.files),
                "digest": e.digest,
            }
            for e in entries
        ],
    }


def restored(value: Mapping[str, Any]) -> tuple[Entry, ...]:
    """Return the history that `stored` has made, of this version.

    Raises:
        ValueError: it is none.
    """
    entries = value.get("entries")
    if not isinstance(entries, list):
        raise ValueError("entries: expected a list")  # noqa: TRY004 - of a file
    return tuple(map(_entry, entries[:MOST_KEPT]))


def _entry(value: object) -> Entry:
    match value:
        case {
            "time": int() | float() as time,
            "user": str(user),
            "how": "start" | "reload" | "trial" | "rollback" as how,
            "changes": list(changes),
            "files": files,
            "digest": digest,
        } if _all_text(changes) and 0 <= time < _LATEST:
            if isinstance(files, dict) and files and _all_text(files) and _all_text(files.values()):
                texts, digest = files, digest_of_all(files)
            elif files is None and isinstance(digest, str):
                texts = None
            else:
                raise ValueError("files: expected texts by name")
            said = tuple(changes[:_MOST_CHANGES])
            return Entry(time=time, user=user, how=how, changes=said, digest=digest, files=texts)
        case _:
            raise ValueError("an entry has no time, user, way, changes or files")


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(one, str) for one in values)
