"""What is wrong with rules that were made by hand?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check

RECIPES: Final[tuple[Check, ...]] = ()
