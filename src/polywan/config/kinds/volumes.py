"""How amounts of data are written in the file and on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic_core import PydanticCustomError

from polywan.config.kinds.scalars import Kind, Percent, either

_BYTES: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_VOLUME: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z/]{1,8})")


@dataclass(frozen=True, slots=True)
class Volume(Kind):
    """An amount of data in bytes, with a unit or as a plain number; both limits are included."""

    least: int = 1_000_000
    most: int = 1_000_000_000_000_000
    units: ClassVar[tuple[str, ...]] = ("kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB")

    def _expected(self) -> str:
        least = "0B" if not self.least else "1MB"
        return f'an amount of data such as "50GB" ("{least}" to "1000TB")'

    def _schema(self) -> dict[str, Any]:
        units = "|".join("".join(f"[{c.upper()}{c.lower()}]" for c in unit) for unit in ("B", *self.units))
        text = {"type": "string", "pattern": rf"^[0-9]{{1,15}}(\.[0-9]{{1,9}})? ?({units})$"}
        return {"anyOf": [text, {"type": "integer", "minimum": self.least, "maximum": self.most}]}

    def _parse(self, raw: object) -> int:
        if isinstance(raw, str):
            value = self._text(raw)
        elif isinstance(raw, int) and not isinstance(raw, bool):
            value = raw
        else:
            raise self.refusal(raw)
        if not self.least <= value <= self.most:
            raise self.refusal(raw, "a plain number is bytes" if not isinstance(raw, str) else "")
        return round(value)

    def _text(self, raw: str) -> float:
        found = _VOLUME.fullmatch(raw.strip())
        factor = _BYTES.get(found[2].lower()) if found else None
        if found is None or factor is None:
            bits = found is not None and found[2].lower().endswith(("bit", "bps", "/s"))
            hint = "a number and a unit (" + either(self.units) + ")"
            raise self.refusal(raw, f"that is a bandwidth: {hint}" if bits else hint)
        return float(found[1]) * factor


@dataclass(frozen=True, slots=True)
class PartOrVolume(Kind):
    """A share of something, as a float up to 1, or an amount of data, as a whole number of bytes."""

    def _expected(self) -> str:
        return 'a share such as "90%", or an amount of data such as "45GB"'

    def _schema(self) -> dict[str, Any]:
        return {"anyOf": [*Percent().schema["anyOf"], *Volume().schema["anyOf"]]}

    def _parse(self, raw: object) -> float | int:
        share = isinstance(raw, float) or (isinstance(raw, str) and raw.rstrip().endswith("%")) or raw in (0, 1)
        try:
            return float(Percent().parse(raw)) if share else int(Volume().parse(raw))
        except PydanticCustomError as error:
            raise self.refusal(raw, (error.context or {})["hint"]) from error
