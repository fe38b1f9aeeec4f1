"""What is wrong with a file: every problem, placed. The whole tree of errors is drawn in `core/errors.py`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_RULE: Final = re.compile(r"^rules\[([0-9]+)\](\.)?")


class PolywanError(Exception):
    """Base of every error that is polywan's own; its text is meant for the user."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration, placed where the user can find it.

    Attributes:
        where: file and line, as ``/etc/polywan/polywan.toml:12`` (the line is absent when unknown).
        key: dotted path of the value, as ``uplinks.fibre.weight`` or ``rules[0].port``; people see ``rule 1: port``.
        message: what is wrong and what was expected.
        hint: what to do, often "did you mean …"; empty when there is nothing to add.
    """

    where: str
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        tail = f" ({self.hint})" if self.hint else ""
        return f"{self.where}: {spoken(self.key)}: {self.message}{tail}"


def spoken(key: str) -> str:
    """Return a key as people read it: rules have numbers, and count from 1 wherever polywan speaks of them."""
    return _RULE.sub(lambda found: f"rule {int(found[1]) + 1}" + (": " if found[2] else ""), key)


class ConfigError(PolywanError):
    """The configuration is bad; every problem is listed and nothing was changed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)


class UnreadableError(ConfigError):
    """The configuration may not be read by this user; nothing else is known to be wrong with it."""
