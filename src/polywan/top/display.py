"""How things are written for this terminal and its user: characters, units, and what stays hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polywan.cli.units import rate, size
from polywan.core.masking.networks import kept
from polywan.core.masking.spelled import Kind, places
from polywan.core.net import Family
from polywan.core.words import printable

_LEVELS: Final = {True: "▁▂▃▄▅▆▇█", False: "_.-:=+*#"}
_BAR: Final = {True: ("█", "░"), False: ("#", ".")}
_ASCII: Final = str.maketrans({"…": "~", "→": "->"})
_HIDDEN: Final = {Kind.ADDRESS4: "x.x.x.x", Kind.ADDRESS6: "x::x", Kind.HARDWARE: "xx:xx:xx:xx:xx:xx"}
_FAMILIES: Final = {Kind.ADDRESS4: Family.V4, Kind.ADDRESS6: Family.V6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How things are written.

    Attributes:
        utf8: the terminal shows more than ASCII.
        colours: it may be sent colours.
        private: public addresses are hidden, so that a screen may be shown to others.
        in_bytes: rates are bytes per second instead of bits.
    """

    utf8: bool = True
    colours: bool = True
    private: bool = False
    in_bytes: bool = False

    @property
    def cut(self) -> str:
        """What stands at the end of a text that was cut."""
        return "…" if self.utf8 else "~"

    def text(self, foreign: str) -> str:
        """Return a text of others as it may be shown, on one line."""
        shown = printable(self.hidden(foreign))
        return shown if self.utf8 else shown.translate(_ASCII).encode("ascii", "replace").decode("ascii")

    def hidden(self, text: str) -> str:
        """Return a text without the addresses that are to stay hidden: before it is cut, as a part is none."""
        return _without_addresses(text) if self.private else text

    def rate(self, bits: int | None) -> str:
        """Return bits per second in the unit that is wanted; a dash for None."""
        if bits is None:
            return "-"
        return f"{size(bits // 8)}/s" if self.in_bytes else rate(bits)

    def bar(self, part: float, cells: int) -> str:
        """Return a bar of so many cells that is filled to that part, 0..1; whatever is not nothing fills a cell."""
        filled = min(cells, max(round(part * cells), 1 if part > 0 else 0))
        full, empty = _BAR[self.utf8]
        return full * filled + empty * (cells - filled)

    def spark(self, values: Sequence[float | None], cells: int) -> str:
        """Return a line of so many cells: each value one as high as it is beside the highest; the last one at its end.

        Where there are more values than cells, the highest of several is shown. Nothing stands where nobody knows.
        """
        each = _together(len(values), cells)
        groups = [
            [v for v in values[max(0, end - each) : end] if v is not None] for end in range(len(values), 0, -each)
        ]
        peaks = [max(group, default=None) for group in reversed(groups)][-cells:]
        levels = _LEVELS[self.utf8]
        highest = max((peak for peak in peaks if peak is not None), default=0.0) or 1.0
        shown = [" " if peak is None else levels[round((len(levels) - 1) * peak / highest)] for peak in peaks]
        return "".join(shown).rjust(cells)


def _together(values: int, cells: int) -> int:
    return max(1, -(-values // max(1, cells)))


def evenly(values: int, cells: int) -> int:
    """Return how many cells, at most so many, `Display.spark` fills with values."""
    return -(-values // _together(values, cells)) if cells > 0 else 0


def _without_addresses(text: str) -> str:
    pieces, at = [], 0
    for place in places(text):
        family = _FAMILIES.get(place.kind)
        if family is None or not kept(family, place.value):
            pieces += [text[at : place.start], _HIDDEN[place.kind]]
            at = place.end
    return "".join([*pieces, text[at:]])


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Tell from the variables of the locale (locale(7)) whether the terminal shows UTF-8."""
    said = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    # Where nothing or "C" was said, Python says this instead (PEP 538).
    if said == "C.UTF-8" and not environ.get("LC_ALL") and environ.get("LANG", "C") in ("", "C", "POSIX"):
        return False
    return said.upper().replace("-", "").partition(".")[2].startswith("UTF8")
