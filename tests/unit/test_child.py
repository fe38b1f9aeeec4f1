"""Programs of the administrator's."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import subprocess, sys
sys.version_info = {version}
import polywan.child
print(subprocess._USE_VFORK)
"""


@pytest.mark.parametrize(("version", "vfork"), [((3, 11, 3), "False"), ((3, 11, 4), "True"), ((3, 13, 0), "True")])
def test_no_program_is_started_by_vfork_where_that_stops_all_threads(version: tuple[int, ...], vfork: str) -> None:
    code = LOOK.format(version=version)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == vfork
