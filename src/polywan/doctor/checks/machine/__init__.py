"""What is wrong with the rest of the box?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check

MACHINE: Final[tuple[Check, ...]] = ()
