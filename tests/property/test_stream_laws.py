"""Whoever follows the stream knows what the status says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from polywan.api.codec import decode, encode
from polywan.api.document import Document
from polywan.api.status import FamilyStatus, LayerStatus, Status, UplinkStatus
from polywan.api.views.stream import Change, StreamSample, UplinkSample
from polywan.core.views.changes import SAMPLED, VOLATILE, change, changed, lasting, sampled
from support.documents import family, policy, status, uplink

TIME = "2026-11-30T12:00:00.000+00:00"
NAMES = ("a", "b", "c")

numbers = st.integers(0, 3)
lines = st.none() | st.floats(0, 1)
layers = st.dictionaries(
    st.sampled_from(["gateway", "dns"]),
    st.builds(
        LayerStatus, state=st.sampled_from(["ok", "broken"]), detail=st.sampled_from(["x", "y"]), since=st.just(TIME)
    ),
)
families = st.builds(
    family,
    state=st.sampled_from(["up", "down"]),
    since=st.just(TIME),
    rtt_ms=lines,
    held_for=st.none() | st.floats(0, 9),
    layers=layers,
)


def uplinks(name: str) -> st.SearchStrategy[UplinkStatus]:
    return st.builds(
        uplink,
        st.just(name),
        st.sampled_from(["up", "degraded", "down"]),
        since=st.just(TIME),
        families=st.fixed_dictionaries({"ipv4": families}),
        rtt_ms=lines,
        loss=lines,
        late=lines,
        connections=numbers,
        rx_bps=numbers,
        rx_bytes=numbers,
        held_for=st.none() | st.floats(0, 9),
        outages_today=numbers,
    )


@st.composite
def statuses(draw: st.DrawFn) -> Status:
    names = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    there = [draw(uplinks(name)) for name in names]
    served = policy("default", {"ipv4": dict.fromkeys(names, 1.0)})
    return status(
        *there,
        policies=(served,) if draw(st.booleans()) else (),
        since=draw(st.sampled_from([TIME, "2026-11-30T13:00:00.000+00:00"])),
        warnings=draw(st.sampled_from([(), ("look here",)])),
        generation=draw(numbers),
    )


def sample_of(document: Status) -> StreamSample:
    """What is measured of a status."""
    found = {
        u.name: UplinkSample(**{name: getattr(u, name) for name in SAMPLED}, share_seen=None) for u in document.uplinks
    }
    return StreamSample(time=TIME, uplinks=found)


def taken_in(known: Status, event: Document | None) -> Status:
    """What somebody knows after an event, who has read it from JSON."""
    if isinstance(event, Change):
        return changed(known, decode(Change, encode(event)))
    return event if isinstance(event, Status) else known


@given(st.lists(statuses(), min_size=1, max_size=5))
def test_a_snapshot_and_all_that_has_changed_since_is_the_status(documents: list[Status]) -> None:
    known = documents[0]
    for before, after in pairwise(documents):
        known = sampled(taken_in(known, change(before, after, TIME)), sample_of(after))
        assert lasting(known) == lasting(after)
        for mine, theirs in zip(known.uplinks, after.uplinks, strict=True):
            assert {n: getattr(mine, n) for n in SAMPLED} == {n: getattr(theirs, n) for n in SAMPLED}


@given(statuses(), statuses())
def test_a_change_that_says_all_leaves_nothing_out(before: Status, after: Status) -> None:
    assert taken_in(before, change(before, after, TIME, whole=True)) == after


@given(statuses())
def test_what_is_the_same_is_no_change(document: Status) -> None:
    assert change(document, document, TIME) is None
    assert change(document, document, TIME, whole=True) is None


@given(statuses(), st.data())
def test_what_is_measured_alone_is_no_change(document: Status, data: st.DataObject) -> None:
    def measured_anew(one: UplinkStatus) -> UplinkStatus:
        kept: dict[str, Any] = {n: getattr(one, n) for n in UplinkStatus.__fields__ if n not in VOLATILE[UplinkStatus]}
        other = data.draw(uplinks(one.name))
        return UplinkStatus(**{**{n: getattr(other, n) for n in VOLATILE[UplinkStatus]}, **kept})

    kept = {n: getattr(document, n) for n in Status.__fields__}
    after = Status(**{**kept, "uplinks": tuple(map(measured_anew, document.uplinks))})
    assert change(document, after, TIME) is None


def test_only_uplinks_that_changed_are_sent() -> None:
    before = status(uplink("a", since=TIME), uplink("b", since=TIME), since=TIME)
    after = status(uplink("a", "down", since=TIME), *before.uplinks[1:], since=TIME)
    found = change(before, after, TIME)
    assert isinstance(found, Change)
    assert [one.name for one in found.uplinks] == ["a"]
    assert found.policies is None


def test_the_measured_keys_are_keys() -> None:
    assert all(kept <= kind.__fields__.keys() for kind, kept in VOLATILE.items())
    assert FamilyStatus in VOLATILE
