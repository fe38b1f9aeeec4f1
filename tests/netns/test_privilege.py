"""What programs that the daemon starts inherit of its capabilities."""

from __future__ import annotations

import subprocess
import sys

from polywan.kernel.privilege import NET_ADMIN

NET_RAW = 13
AS_THE_UNIT = ["setpriv", "--inh-caps", "+net_admin,+net_raw", "--ambient-caps", "+net_admin,+net_raw"]
PLAY = """
import subprocess
from pathlib import Path
from polywan.kernel.privilege import NET_ADMIN, keep_to_ourselves

def sets(status):
    return " ".join(line.split()[1] for line in status.splitlines() if line.startswith(("CapPrm", "CapEff", "CapAmb")))

keep_to_ourselves(NET_ADMIN)
print(sets(Path("/proc/self/status").read_text()))
print(sets(subprocess.run(["cat", "/proc/self/status"], text=True, capture_output=True, check=True).stdout))
"""


def test_a_program_inherits_raw_sockets_and_not_the_administration_of_the_network() -> None:
    done = subprocess.run([*AS_THE_UNIT, sys.executable, "-c", PLAY], text=True, capture_output=True, check=True)
    ours, theirs = ([int(word, 16) for word in line.split()] for line in done.stdout.splitlines())
    assert all(held >> NET_ADMIN & 1 for held in ours[:2])
    assert theirs[2] == 1 << NET_RAW
