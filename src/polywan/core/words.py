"""Numbers, times and lists as sentences have them. Imports nothing, since `status` waits for it."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 connection``, ``2 connections``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ordinal(number: int) -> str:
    """Return ``1st``, ``2nd``, ``3rd``, ``4th``, ``11th`` …."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def lasted(seconds: float) -> str:
    """Return a time span in its two largest units: ``4 min 12 s``, ``2 h 5 min``, ``0.4 s``."""
    if seconds < 1:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    sizes = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next(index for index, (size, _) in enumerate(sizes) if whole >= size)
    size, unit = sizes[first]
    text = f"{whole // size} {unit}"
    if first + 1 < len(sizes):
        smaller, its_unit = sizes[first + 1]
        if rest := whole % size // smaller:
            text += f" {rest} {its_unit}"
    return text


def size(count: int) -> str:
    """Return bytes in decimal units, as bit/s are: ``1.5 MB``."""
    if count < 1000:
        return f"{count} B"
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1_000_000_000 else f"{count / 1e9:.1f} GB"


def listed(names: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def by_family(reasons: dict[str, str]) -> str:
    """Join what holds for each family, by its name (``IPv4``): once where all are the same.

    A sentence that names its family already is not given the name twice.
    """
    if len(set(reasons.values())) == 1:
        return next(iter(reasons.values()))
    return "; ".join(text if family in text else f"{family}: {text}" for family, text in reasons.items())


def printable(text: str, keep: str = "") -> str:
    """Escape what could forge log lines or order a terminal about, but the characters in `keep`.

    Names come from peers, drivers and DHCP servers.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else f"\\x{ord(c):02x}" for c in text)
