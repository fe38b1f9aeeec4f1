"""Versions of the documents that outlive a daemon: older ones are brought up to ours, newer ones are refused.

A document says its version in the key `version`; one without it is of version 0. A newer one is never changed: it
belongs to a newer polywan, which may be installed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from polywan.core.errors import NewerError

VERSION_KEY: Final = "version"

Migration: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a document of one version to one of the next; it does not care for the key `version`."""


def upgraded(document: object, migrations: Sequence[Migration], where: str, cost: str) -> Mapping[str, Any]:
    """Return a document as this polywan writes it.

    Args:
        document: what was read.
        migrations: the first makes version 1 of version 0, and so on; ours is as many as there are.
        where: the file, for people.
        cost: what it means to do without the document, for people.

    Raises:
        NewerError: a newer polywan has written it.
        ValueError: it is of another kind altogether, or its version is no version.
    """
    if not isinstance(document, Mapping):
        raise ValueError("expected an object")  # noqa: TRY004 - the document is wrong, not the program
    version = document.get(VERSION_KEY, 0)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ValueError("its version is not a whole number")
    if version > len(migrations):
        raise NewerError(newer(where, version, len(migrations), cost))
    for migration in migrations[version:]:
        document = migration(document)
    return {**document, VERSION_KEY: len(migrations)}


def newer(where: str, version: int, ours: int, cost: str) -> str:
    """Return the sentence about a file that a newer polywan has written."""
    return (
        f"{where} was written by a newer polywan (version {version}; this polywan reads up to version {ours}): install "
        f"the newer polywan again, or move the file away; without it, {cost}. The file was not changed"
    )
