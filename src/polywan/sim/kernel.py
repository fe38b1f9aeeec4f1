"""The kernel of a simulation: what happens in it is heard at once, without a loop that runs."""

from __future__ import annotations

from collections.abc import Callable

from polywan.core.state.events import KernelEvent, NewConnections
from polywan.core.world.observed import Observed
from polywan.kernel.fake.kernel import FakeKernel


class SimulatedKernel(FakeKernel):
    """A `FakeKernel` that tells one listener of everything, before the call returns that caused it.

    Attributes:
        deaf: the listener hears of nothing, as when the kernel drops notifications.
    """

    def __init__(self, observed: Observed, receive: Callable[[KernelEvent | NewConnections], None]) -> None:
        super().__init__(links=observed.links.values(), addresses=observed.addresses, defaults=observed.defaults)
        self._receive = receive
        self.deaf = False

    def emit(self, event: KernelEvent) -> None:
        """Tell the listener."""
        if not self.deaf:
            self._receive(event)

    def hear(self, new_connections: NewConnections) -> None:
        """Tell the listener."""
        self._receive(new_connections)
