"""The search for the largest packet that passes ends in three steps."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from polywan.core.health.layers import CheckOrder, CheckResult, Layer
from polywan.core.net import Family
from polywan.doctor.facts.egress import Egress
from polywan.doctor.reading import path_size
from polywan.probe.check import CheckOutcome

TARGET = ip_address("203.0.113.1")
EGRESS = Egress("wan1", "wan1", Family.V4, 254)
ORDER = CheckOrder(
    uplink="wan1", family=Family.V4, layer=Layer.LARGE, interface="wan1", mark=0, number=0, timeout=0.0, size=1500
)


def measured(monkeypatch: pytest.MonkeyPatch, fits: int, detail: str = "no answer") -> tuple[Any, list[int]]:
    """Measure a path that lets so many bytes pass; return also the sizes that were sent."""
    sent: list[int] = []

    async def carry_out(order: CheckOrder, _: object) -> CheckOutcome:
        sent.append(order.size)
        ok = order.size <= fits
        result = CheckResult(
            uplink="wan1", family=Family.V4, layer=Layer.LARGE, number=0, ok=ok, detail="" if ok else detail
        )
        return CheckOutcome(result)

    monkeypatch.setattr(path_size, "carry_out", carry_out)
    found, denied = asyncio.run(path_size.measure(ORDER, EGRESS, (TARGET,)))
    assert denied is None
    return found, sent


@pytest.mark.parametrize("fits", range(1200, 1500, 7))
def test_above_1200_bytes_the_size_is_exact(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    found, sent = measured(monkeypatch, fits)

    assert (found.largest, found.full) == (fits, ())
    assert len(sent) < 40


@pytest.mark.parametrize("fits", [128, 600, 1000, 1199])
def test_below_it_is_one_that_passes(monkeypatch: pytest.MonkeyPatch, fits: int) -> None:
    found, _ = measured(monkeypatch, fits)

    assert fits - 8 < found.largest <= fits


def test_a_path_that_lets_all_pass_or_nothing_or_says_so_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(monkeypatch, 1500)[1] == [128, 1500]
    assert measured(monkeypatch, 0)[1] == [128, 1500]
    found, sent = measured(monkeypatch, 1400, "1500 bytes: the path allows 1400")
    assert (found.reported, sent) == (True, [128, 1500])
