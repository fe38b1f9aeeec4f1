"""Regular work is done at common times."""

from __future__ import annotations

import pytest

from polywan.daemon import clock


class Loop:
    """A clock that says what it is told, and sleeps without waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: float) -> None:
        self.now = now
        monkeypatch.setattr("polywan.daemon.clock.asyncio.get_running_loop", lambda: self)
        monkeypatch.setattr("polywan.daemon.clock.asyncio.sleep", self.sleep)

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("now", [0.0, 0.3, 6.9, 7.0, 7.1, 7.999999999, 12345.678])
@pytest.mark.parametrize("period", [0.25, 1.0, 2.0, 3.0])
def test_a_turn_is_a_multiple_of_its_period_and_neither_at_once_nor_late(
    monkeypatch: pytest.MonkeyPatch, now: float, period: float
) -> None:
    loop = Loop(monkeypatch, now)
    coroutine = clock.turn(period)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert loop.now / period == pytest.approx(round(loop.now / period))
    assert period / 2 - 1e-6 <= loop.now - now <= 1.5 * period + 1e-6
