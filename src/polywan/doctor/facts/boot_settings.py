"""Settings of sysctl.d(5): which line decides about a setting when the box starts, or when a link appears."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

_GLOB: Final = frozenset("*?[")


class SettingsFile(NamedTuple):
    """A file with settings."""

    path: str
    text: str

    @property
    def name(self) -> str:
        """Its name, by which files are put in order."""
        return self.path.rpartition("/")[2]


class Line(NamedTuple):
    """One line; `value` is None where it only takes a setting out of what patterns match (``-net.ipv4…``)."""

    file: SettingsFile
    number: int
    pattern: str
    value: str | None

    @property
    def place(self) -> str:
        """File, line and what it says."""
        return f"{self.file.path}:{self.number}: {self.pattern.replace('/', '.')} = {self.value}"

    @property
    def exact(self) -> bool:
        """True when it names one setting."""
        return not _GLOB & {*self.pattern}


def decisive(files: Iterable[SettingsFile], path: str) -> Line | None:
    """Return the line that sets a path such as "net/ipv4/ip_forward"; None when no file does.

    The last line counts, and one that names the setting before all patterns, wherever they are.
    """
    exact: Line | None = None
    matched: Line | None = None
    for line in _lines(files):
        if line.exact and line.pattern == path:
            exact = line
        elif not line.exact and _matches(line.pattern, path):
            matched = line
    found = exact or matched
    return found if found is not None and found.value is not None else None


def _lines(files: Iterable[SettingsFile]) -> Iterator[Line]:
    for file in files:
        for number, text in enumerate(file.text.splitlines(), start=1):
            words = text.strip()
            if not words or words[0] in "#;":
                continue
            key, assigned, value = words.partition("=")
            pattern = _path(key.strip().removeprefix("-").strip())
            if assigned:
                yield Line(file, number, pattern, value.strip())
            elif words.startswith("-"):
                yield Line(file, number, pattern, None)


def _path(key: str) -> str:
    """Return a key with slashes; the separator that comes first is the one that is meant (sysctl.d(5))."""
    first = next((character for character in key if character in "./"), "/")
    return key if first == "/" else key.translate(str.maketrans("./", "/."))


def _matches(pattern: str, path: str) -> bool:
    parts, wanted = pattern.split("/"), path.split("/")
    return len(parts) == len(wanted) and all(fnmatchcase(w, p) for p, w in zip(parts, wanted, strict=True))
