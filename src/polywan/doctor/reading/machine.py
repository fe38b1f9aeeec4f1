"""Read files, units, tools and the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polywan.doctor.facts.machine import MachineFacts

if TYPE_CHECKING:
    from polywan.doctor.reading.collect import Places


def read(places: Places) -> MachineFacts:  # noqa: ARG001
    """Return what the box says."""
    return MachineFacts()
