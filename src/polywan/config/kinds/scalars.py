"""How values are written in the file: each kind parses, and describes itself for messages and docs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from polywan.config.faults import Path, closest, shown

ERROR_TYPE: Final = "polywan"
"""Type of the validation errors whose context holds our own `message`, `hint` and `at`."""

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BITS: Final = {"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|min|m|h|d)")
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_URL: Final = re.compile(
    r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[!-~]{0,1024})?|https?://\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?(?:/[!-~]{0,1024})?"
)
_RATE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z/]{1,8})")


def rejection(message: str, hint: str = "", at: Path = ()) -> PydanticCustomError:
    """Return the error that refuses a value; `at` leads from the value to the part of it that is wrong."""
    return PydanticCustomError(ERROR_TYPE, "{message}", {"message": message, "hint": hint, "at": at})


class Kind(ABC):
    """One way of writing a value. As `Annotated` metadata it replaces pydantic's parser and messages."""

    __slots__ = ()

    @property
    def expected(self) -> str:
        """What may be written, for messages ("expected …") and docs."""
        return self._expected()

    @property
    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        return self._schema()

    def parse(self, raw: object) -> Any:
        """Return the value; one that is parsed already passes.

        Raises:
            PydanticCustomError: what `rejection` makes.
        """
        return self._parse(raw)

    def takes(self, raw: object) -> bool:
        """Tell whether `parse` takes a value."""
        try:
            self._parse(raw)
        except PydanticCustomError:
            return False
        return True

    def refusal(self, raw: object, hint: str = "") -> PydanticCustomError:
        """Say what was expected and what was found."""
        return rejection(f"expected {self.expected}, got {shown(raw)}", hint)

    @abstractmethod
    def _expected(self) -> str: ...

    @abstractmethod
    def _schema(self) -> dict[str, Any]: ...

    @abstractmethod
    def _parse(self, raw: object) -> object: ...

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._parse)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self._schema()


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """Text of a fixed shape, as names are; `words` say which."""

    pattern: str
    words: str

    def _expected(self) -> str:
        return self.words

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern}$"}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise self.refusal(raw, "text needs quotes" if isinstance(raw, int | float) else "")
        if not re.fullmatch(self.pattern, raw):
            raise self.refusal(raw)
        return raw


@dataclass(frozen=True, slots=True)
class OneOf(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    def _expected(self) -> str:
        return either([f'"{w}"' for w in self.words])

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}

    def _parse(self, raw: object) -> str:
        if isinstance(raw, str):
            if raw in self.words:
                return raw
            raise self.refusal(raw, closest(raw, self.words))
        raise self.refusal(raw)


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """True or false, or one of the words that may stand instead; `values` are the truth values that it may have."""

    words: tuple[str, ...] = ()
    values: tuple[bool, ...] = (True, False)

    def _expected(self) -> str:
        return either([*(str(value).lower() for value in self.values), *(f'"{w}"' for w in self.words)])

    def _schema(self) -> dict[str, Any]:
        return {"enum": [*self.values, *self.words]} if self.words else {"type": "boolean"}

    def _parse(self, raw: object) -> bool | str:
        if (isinstance(raw, bool) and raw in self.values) or (isinstance(raw, str) and raw in self.words):
            return raw
        quoted = isinstance(raw, str) and raw.lower() in {str(value).lower() for value in self.values}
        raise self.refusal(raw, "write it without quotes" if quoted else "")


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number within limits, both included."""

    least: int
    most: int

    def _expected(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def _schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def _parse(self, raw: object) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool) and self.least <= raw <= self.most:
            return raw
        digits = isinstance(raw, str) and raw.isascii() and raw.isdigit()
        raise self.refusal(raw, "write it without quotes" if digits else "")


@dataclass(frozen=True, slots=True)
class Mask(Kind):
    """Bits of the 32-bit packet mark; too few of them would leave no room for uplinks."""

    fewest: int = 3

    def _expected(self) -> str:
        return f"a mask of at least {self.fewest} of 32 bits, such as 0x3f00"

    def _schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": (1 << self.fewest) - 1, "maximum": 0xFFFF_FFFF}

    def _parse(self, raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise self.refusal(raw, "write it without quotes: 0x3f00" if isinstance(raw, str) else "")
        if not 0 < raw <= 0xFFFF_FFFF:
            raise self.refusal(raw)
        if raw.bit_count() < self.fewest:
            raise rejection(f"expected {self.expected}, got {raw:#x} with {raw.bit_count()}")
        return raw


@dataclass(frozen=True, slots=True)
class Duration(Kind):
    """A time span in seconds, with a unit or as a plain number; limits are seconds."""

    least: float
    most: float
    unit_words: ClassVar[str] = "ms, s, m, h or d"

    def _expected(self) -> str:
        return f'a duration from "{span(self.least)}" to "{span(self.most)}"'

    def _schema(self) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{_DURATION.pattern}$"}
        return {"anyOf": [text, {"type": "number", "minimum": self.least, "maximum": self.most}]}

    def _parse(self, raw: object) -> float:
        value: float = -1.0
        if isinstance(raw, str):
            found = _DURATION.fullmatch(raw.strip())
            if not found:
                raise self.refusal(raw, f'a number and a unit ({self.unit_words}), such as "{span(self.least or 1.0)}"')
            # Division by a whole number keeps "200ms" at exactly 0.2, which the factor 0.001 would not.
            number, unit = float(found[1]), found[2]
            value = number / 1000 if unit == "ms" else number * _SECONDS[unit]
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            # Compared before the conversion: a huge integer does not fit a float. NaN fails both comparisons.
            value = float(raw) if self.least <= raw <= self.most else -1.0
        else:
            raise self.refusal(raw)
        if not self.least <= value <= self.most:
            raise self.refusal(raw, "a plain number is seconds" if not isinstance(raw, str) else "")
        return value


@dataclass(frozen=True, slots=True)
class Rate(Kind):
    """A bandwidth in bit/s, with a unit or as a plain number."""

    least: int = 1_000
    most: int = 1_000_000_000_000
    units: tuple[str, ...] = field(default=("bit", "kbit", "Mbit", "Gbit", "Tbit"))

    def _expected(self) -> str:
        return 'a bandwidth such as "500Mbit" ("1kbit" to "1Tbit")'

    def _schema(self) -> dict[str, Any]:
        units = "|".join(f"[{u[0].upper()}{u[0].lower()}]{u[1:]}" for u in self.units)
        text = {"type": "string", "pattern": rf"^[0-9]{{1,15}}(\.[0-9]{{1,9}})? ?({units})$"}
        return {"anyOf": [text, {"type": "number", "minimum": self.least, "maximum": self.most}]}

    def _parse(self, raw: object) -> int:
        if isinstance(raw, str):
            value = self._text(raw)
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            value = float(raw) if self.least <= raw <= self.most else 0.0
        else:
            raise self.refusal(raw)
        if not self.least <= value <= self.most:
            raise self.refusal(raw, "a plain number is bit/s" if not isinstance(raw, str) else "")
        return round(value)

    def _text(self, raw: str) -> float:
        hint = "a number and a unit (" + either(self.units) + ")"
        found = _RATE.fullmatch(raw.strip())
        if not found:
            raise self.refusal(raw, hint)
        number, unit = found[1], found[2].lower()
        if unit not in _BITS:
            likely = {"k": "kbit", "m": "Mbit", "g": "Gbit", "t": "Tbit"}.get(unit[0])
            # "MB" and tc's "Mbps" are bytes: guessing would be wrong by a factor of eight.
            raise self.refusal(
                raw, f'the unit is bits, not bytes: did you mean "{number}{likely}"?' if likely else hint
            )
        return float(number) * _BITS[unit]


@dataclass(frozen=True, slots=True)
class Percent(Kind):
    """A share, as a percentage or a number from `least` to 1."""

    least: float = 0.0

    def _expected(self) -> str:
        return 'a share such as "20%" or 0.2' if not self.least else f'a share from "{self.least:.0%}" to "100%"'

    def _schema(self) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{_PERCENT.pattern}$"}
        return {"anyOf": [text, {"type": "number", "minimum": self.least, "maximum": 1}]}

    def _parse(self, raw: object) -> float:
        if isinstance(raw, str) and (found := _PERCENT.fullmatch(raw.strip())):
            value = float(found[1]) / 100
        elif isinstance(raw, int | float) and not isinstance(raw, bool):
            value = float(raw) if self.least <= raw <= 1 else -1.0
        else:
            raise self.refusal(raw)
        if not self.least <= value <= 1:
            raise self.refusal(raw, "a plain number is a share: 0.2 is 20%" if not isinstance(raw, str) else "")
        return value


@dataclass(frozen=True, slots=True)
class Url(Kind):
    """The address of a page, without anything that could end a line of the request."""

    def _expected(self) -> str:
        return 'an http or https URL such as "http://connectivity.example/204"'

    def _schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_URL.pattern}$"}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str) or not _URL.fullmatch(raw):
            raise self.refusal(raw)
        return raw


@dataclass(frozen=True, slots=True)
class Word(Kind):
    """One argument of a program."""

    def _expected(self) -> str:
        return "a program and its arguments, as a list of strings"

    def _schema(self) -> dict[str, Any]:
        return {"type": "string"}

    def _parse(self, raw: object) -> str:
        if not isinstance(raw, str) or "\0" in raw or len(raw) > 4096:
            raise self.refusal(raw)
        return raw


def either(words: list[str] | tuple[str, ...]) -> str:
    """Join alternatives: ``a, b or c``."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def span(seconds: float) -> str:
    """Write seconds as the file does, in the largest unit that keeps the number whole."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or not seconds else f"{seconds * 1000:g}ms"
