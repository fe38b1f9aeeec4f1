"""Texts of a configuration's files, by their names below its directory, and what tells two configurations apart."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping


def digest_of(text: str) -> str:
    """Return what tells a text from others."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digests_of(files: Mapping[str, str]) -> dict[str, str]:
    """Return what tells each text from others."""
    return {name: digest_of(text) for name, text in files.items()}


def digest_of_all(files: Mapping[str, str]) -> str:
    """Return what tells the texts of a configuration from others."""
    return digest_of(json.dumps(dict(files), sort_keys=True))


def different(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of files that are new, gone or changed."""
    return tuple(name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name))


def is_part(name: str, main: str) -> bool:
    """True for the name of a file that the loader reads: the main one, or one of ``conf.d`` beside it."""
    folder, _, file = name.rpartition("/")
    if name == main:
        return "/" not in name
    return folder == "conf.d" and file.endswith(".toml") and not file.startswith(".") and "\0" not in file


def sent(files: Mapping[str, str]) -> dict[str, str]:
    """Return texts as they are sent (`api.trials.Texts`)."""
    return {name: base64.b64encode(text.encode()).decode("ascii") for name, text in files.items()}


def received(files: Mapping[str, str]) -> dict[str, str]:
    """Return texts that were sent.

    Raises:
        ValueError: it is something else.
    """
    return {name: base64.b64decode(text, validate=True).decode() for name, text in files.items()}
