"""A line by satellite: every answer takes 1.2 s, and none is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from polywan.core.net import Family
from polywan.lab.namespaces import Namespace
from polywan.lab.scenario import configuration
from polywan.lab.topology import SERVERS
from support.lan_traffic import Asker
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon

WATCHED = 15.0
"""Seconds for which the line must not be called down."""

LATEST = 6.0
"""Seconds until its death is noticed: three rounds, each of which waits longer for its answer than the way takes."""

HELD_BACK = """
import fcntl, heapq, os, select, struct, sys, time
delay, ends, waiting = float(sys.argv[1]), [], []
for name in (b"far0", b"near0"):
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22s", name, 0x1001, b""))
    ends.append(end)
print("ready", flush=True)
count = 0
while True:
    left = waiting[0][0] - time.monotonic() if waiting else 1.0
    for end in select.select(ends, [], [], max(left, 0.0))[0]:
        count += 1
        heapq.heappush(waiting, (time.monotonic() + delay, count, ends[1 - ends.index(end)], os.read(end, 2000)))
    while waiting and waiting[0][0] <= time.monotonic():
        _, _, end, packet = heapq.heappop(waiting)
        os.write(end, packet)
"""


@contextmanager
def far(provider: Namespace, seconds: float) -> Iterator[None]:
    """Hold back all that crosses a provider for so long, each way."""
    with provider.entered():
        program = subprocess.Popen([sys.executable, "-c", HELD_BACK, str(seconds)], stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        program.stdout.readline()
        provider.ip(f"link set {name} up" for name in ("far0", "near0"))
        for arrives, leaves, table in (("wan", "far0", "100"), ("core", "near0", "101")):
            provider.ip([f"route add default dev {leaves} table {table}"])
            provider.run(["ip", "rule", "add", "pref", table, "iif", arrives, "lookup", table])
        yield
    finally:
        program.kill()
        program.communicate()


def test_answers_that_take_longer_than_the_interval_are_no_loss_and_silence_is_noticed(
    lab_of: BuildLab, start_daemon: StartDaemon
) -> None:
    lab = lab_of(2, families=[Family.V4])
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1)))

    def down() -> list[float]:
        return [line.at for line in list(daemon.log) if "isp1 is down" in line.text]

    async def story() -> None:
        await asyncio.sleep(WATCHED)
        assert not down()
        seen = [await Asker(lab).tcp(SERVERS[Family.V4][0], patience=8.0) for _ in range(6)]
        assert Counter(seen) in ({1: 3, 2: 3}, {2: 6})  # a slow line may stand by
        lost = lab.blackhole(1)
        while not down() and time.monotonic() < lost + 2 * LATEST:
            await asyncio.sleep(0.05)
        assert down()
        assert down()[0] - lost < LATEST

    with far(lab.provider(1), 0.6):
        with_servers(lab, story)
