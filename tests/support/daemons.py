"""Daemons for tests: the real loop over the kernel in memory, where every probe is answered after a millisecond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from polywan.core.state.events import ConfigLoaded
from polywan.core.state.memory import Memory
from polywan.core.state.state import Known, State
from polywan.daemon.journal import Journal
from polywan.daemon.lookups.resolver import SystemResolver
from polywan.daemon.lookups.watcher import LookupWatcher
from polywan.daemon.loop import Daemon
from polywan.daemon.main import Places, Service
from polywan.daemon.measurements.measuring import Measurer
from polywan.daemon.measurements.store import Store
from polywan.daemon.tasks.quotas import QuotaKeeper
from polywan.daemon.tasks.recording import Recorder
from polywan.kernel.fake.kernel import FakeKernel
from polywan.probe.fake import FakeProber
from support.engine_world import config, world


def kernel_of(count: int) -> FakeKernel:
    """Return a kernel with `count` uplinks, as `world` has them."""
    observed = world(count)
    return FakeKernel(links=observed.links.values(), addresses=observed.addresses, defaults=observed.defaults)


def daemon_over(kernel: FakeKernel, state_dir: Path, memory: Memory | None = None) -> Daemon:
    """Return a daemon that does not run yet; `memory` is what it knows of the one before."""
    return Daemon(
        kernel, FakeProber(lambda order, target: 0.001), State(known=Known(memory=memory or Memory())), state_dir
    )


def service_of(daemon: Daemon, kernel: FakeKernel, places: Places) -> Service:
    """Return what answers the control socket of a daemon; needs a running loop."""
    return service_with(Recorder(Journal(places.state_dir)), daemon, kernel, places)


def service_with(recorder: Recorder, daemon: Daemon, kernel: FakeKernel, places: Places) -> Service:
    """Return the same, with what keeps the daemon's journal."""
    measurer = Measurer(Store(places.state_dir))
    quotas = QuotaKeeper(places.state_dir)
    quotas.follow(daemon)
    return Service(daemon, kernel, LookupWatcher(daemon, SystemResolver()), places, recorder, measurer, quotas)


def places_in(directory: Path) -> Places:
    """Return a directory as all the places that a daemon uses."""
    return Places(directory / "polywan.toml", directory, directory)


@asynccontextmanager
async def running(
    state_dir: Path,
    uplinks: int = 2,
    *,
    memory: Memory | None = None,
    prepare: Callable[[FakeKernel], None] = lambda _: None,
    recorder: Recorder | None = None,
) -> AsyncIterator[tuple[Daemon, FakeKernel]]:
    """Run a daemon, and yield it with its kernel once it is ready; a story may take 5 s, and must not end it.

    Args:
        state_dir: where it keeps its memory.
        uplinks: how many it has.
        memory: what it knows of the daemon before.
        prepare: changes the kernel before the daemon starts.
        recorder: keeps its journal.
    """
    kernel = kernel_of(uplinks)
    prepare(kernel)
    daemon = daemon_over(kernel, state_dir, memory)
    if recorder is not None:
        recorder.follow(daemon)
    daemon.post(ConfigLoaded(config(uplinks)))
    runner = asyncio.create_task(daemon.run())
    try:
        async with asyncio.timeout(5):
            await daemon.ready.wait()
            yield daemon, kernel
        assert not runner.done()
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)
        kernel.close()
