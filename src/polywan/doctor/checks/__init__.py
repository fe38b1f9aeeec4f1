"""All checks, in the order in which they are told."""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check
from polywan.doctor.checks import line, machine, neighbours, recipes, routing

CHECKS: Final[tuple[Check, ...]] = (
    *routing.ROUTING,
    *recipes.RECIPES,
    *neighbours.NEIGHBOURS,
    *line.LINE,
    *machine.MACHINE,
)
