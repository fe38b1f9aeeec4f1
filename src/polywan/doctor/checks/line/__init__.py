"""What is wrong with the lines?"""

from __future__ import annotations

from typing import Final

from polywan.doctor.box import Check

LINE: Final[tuple[Check, ...]] = ()
