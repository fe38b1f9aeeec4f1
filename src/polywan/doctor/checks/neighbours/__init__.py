"""Which other programs are in the way?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check

NEIGHBOURS: Final[tuple[Check, ...]] = ()
