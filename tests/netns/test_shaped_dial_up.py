"""A real PPP session ends and is dialled again: its device is another one each time, and is shaped each time."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from polywan.lab.network import Lab
from support.netns import WaitFor
from support.shaped_lines import ROOT, bandwidth, configuration, leads_to, planned, root_of

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

pytestmark = [pytest.mark.needs("shaping", "ppp", "pppd"), pytest.mark.kernel]

DIAL: Final = ["nodetach", "noauth", "local", "nodefaultroute", "noip", "ipv6", "::2,::1"]
BACK: Final = 2.0
"""Seconds after the device is there."""


@contextmanager
def session(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """Dial ppp0 from the router to the provider, again and again."""
    far = f"nsenter --net={lab.provider(1).path} pppd nodetach noauth local notty noip ipv6 ::1,::2"
    words = ["pppd", *DIAL, "persist", "maxfail", "0", "holdoff", "1", "unit", "0", "pty", far]
    dialler = lab.router.start(words)
    try:
        yield dialler
    finally:
        dialler.terminate()
        dialler.wait(10)


def index_of(lab: Lab) -> int:
    """Return the number of the session's device; 0 without one that is up."""
    shown = lab.router.run(["ip", "-j", "link", "show", "dev", "ppp0"], check=False)
    found = json.loads(shown.stdout)[0] if shown.returncode == 0 else {}
    return int(found["ifindex"]) if "LOWER_UP" in found.get("flags", ()) else 0


def is_shaped(lab: Lab, ifb: str) -> bool:
    return root_of(lab.router, "ppp0") == root_of(lab.router, ifb) == ("cake", ROOT) and leads_to(lab, "ppp0") == ifb


def test_each_session_is_shaped(lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor) -> None:
    lab = lab_of(1)
    more = f'[uplinks.dsl]\ninterface = "ppp0"\n{bandwidth("6Mbit", "2Mbit")}\n'
    daemon = start_daemon(lab, configuration(lab, "", ()) + more, may_complain=True)
    with session(lab) as dialler:
        seen = {0}

        def new_device() -> bool:
            known = len(seen)
            seen.add(index_of(lab))
            return len(seen) > known

        for _ in range(3):
            wait_for(new_device, 20.0, "a session")
            began = time.monotonic()
            wait_for(lambda: is_shaped(lab, "pw-ifb2"), BACK)
            print(f"shaped {1000 * (time.monotonic() - began):.0f} ms after the device was seen")
            dialler.send_signal(signal.SIGHUP)
    wait_for(lambda: not index_of(lab), 10.0)
    assert not [line.text for line in daemon.log if "drift.repaired" in line.text]
    wait_for(lambda: planned(lab, daemon).stdout.strip() == "nothing to change", 10.0)
