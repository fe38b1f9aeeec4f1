"""Incidents are what the journal tells, with their evidence, and none is longer than anybody knows."""

from __future__ import annotations

from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.core.journal.changes import Standing
from polywan.core.measurements.incidents import MOST_EVIDENCE, incidents, lasting, reasons, touching
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.times import iso

BEGIN = 1_796_040_000.0
NOW = BEGIN + 10_000.0


def entry(number: int, at: float, state: str | None, *, event: str = "state", **more: object) -> LinkEvent:
    nothing = dict.fromkeys(LinkEvent.__fields__)
    known = {
        "id": number,
        "time": iso(BEGIN + at),
        "uplink": "fibre",
        "interface": "eth1",
        "reason": f"reason {number}",
    }
    return decode(LinkEvent, {**nothing, **known, "event": event, "state": state, **more})


def test_an_outage_lasts_until_the_uplink_is_well_and_has_each_entry_as_evidence() -> None:
    story = [
        entry(1, 0, "up", event="found"),
        entry(2, 100, "down", previous_state="up", lasted_s=100.0),
        entry(3, 160, "missing", previous_state="down", lasted_s=60.0),
        entry(4, 200, "up", previous_state="missing", lasted_s=40.0),
    ]
    (one,) = incidents(story, NOW)
    assert (one.id, one.state, one.since, one.until) == (2, "down", iso(BEGIN + 100), iso(BEGIN + 200))
    assert (one.seconds, one.reason) == (100.0, "reason 2")
    assert [line.split(" ", 2)[2] for line in one.evidence] == [
        "up → down: reason 2",
        "down → missing: reason 3",
        "missing → up: reason 4",
    ]


def test_bad_quality_and_an_outage_are_two_incidents_newest_first() -> None:
    story = [
        entry(1, 10, "degraded", previous_state="up", lasted_s=5.0),
        entry(2, 20, "down", previous_state="degraded", lasted_s=10.0),
    ]
    assert [(one.state, one.until) for one in incidents(story, NOW)] == [("down", None), ("degraded", iso(BEGIN + 20))]
    assert incidents(story, NOW)[0].seconds == NOW - BEGIN - 20


def test_what_began_before_the_first_entry_is_known_from_what_that_says_of_before() -> None:
    (one,) = incidents([entry(7, 100, "up", previous_state="down", lasted_s=300.0)], NOW)
    assert (one.since, one.seconds, one.reason) == (iso(BEGIN - 200), 300.0, "")


def test_an_outage_goes_on_when_a_new_daemon_finds_it_so() -> None:
    story = [
        entry(1, 10, "down", previous_state="up", lasted_s=5.0),
        entry(2, 50, "down", event="found", previous_state="down", lasted_s=40.0),
        entry(3, 60, "up", previous_state="down", lasted_s=50.0),
    ]
    (one,) = incidents(story, NOW)
    assert (one.id, one.seconds, len(one.evidence)) == (1, 50.0, 3)


def test_an_outage_follows_its_device_to_another_name() -> None:
    story = [
        entry(1, 10, "down", previous_state="up", lasted_s=5.0),
        entry(2, 20, "down", event="renamed", uplink="dsl", reason="called fibre before"),
        entry(3, 30, "up", uplink="dsl", previous_state="down", lasted_s=20.0),
    ]
    (one,) = incidents(story, NOW)
    assert (one.uplink, one.id, one.seconds) == ("dsl", 1, 20.0)


def test_an_uplink_that_leaves_the_file_has_no_outage_any_more() -> None:
    story = [entry(1, 10, "down", previous_state="up"), entry(2, 20, None, event="removed", previous_state="down")]
    (one,) = incidents(story, NOW)
    assert one.until == iso(BEGIN + 20)


def test_another_address_neither_begins_nor_ends_an_incident() -> None:
    assert incidents([entry(1, 10, "down", event="address", lasted_s=5.0)], NOW) == []


def test_what_leaves_the_state_as_it_is_neither_begins_an_outage_nor_hides_when_it_began() -> None:
    standing = Standing(
        uplink="fibre",
        interface="eth1",
        state=UplinkState.DOWN,
        reason="no carrier",
        families={},
        ends={},
        since=50.0,
        ends_since=50.0,
    )
    quota = entry(1, 10, "down", event="quota", previous_state="down", reason="0 B of 50.0 GB used")
    renamed = entry(2, 20, "down", event="renamed", previous_state="down", reason="called line before")
    assert incidents([quota, renamed], NOW) == []
    (one,) = lasting({"fibre": standing}, [quota, renamed], BEGIN - 1000.0, NOW)
    assert (one.since, one.reason) == (iso(BEGIN - 950), "no carrier")
    (one,) = incidents([quota, renamed, entry(3, 30, "up", previous_state="down", lasted_s=1000.0)], NOW)
    assert (one.since, one.until) == (iso(BEGIN - 970), iso(BEGIN + 30))


def test_outages_follow_uplinks_that_exchange_their_names() -> None:
    story = [
        entry(1, 10, "down", previous_state="up"),
        entry(2, 15, "down", uplink="dsl", previous_state="up"),
        entry(3, 20, "down", event="renamed", uplink="fibre", reason="called dsl before"),
        entry(4, 20, "down", event="renamed", uplink="dsl", reason="called fibre before"),
        entry(5, 30, "up", uplink="dsl", previous_state="down"),
    ]
    assert [(one.id, one.uplink, one.until) for one in incidents(story, NOW)] == [
        (2, "fibre", None),
        (1, "dsl", iso(BEGIN + 30)),
    ]


def test_an_outage_of_an_uplink_whose_name_another_one_takes_ends_there() -> None:
    story = [
        entry(1, 10, "down", previous_state="up"),
        entry(2, 15, "down", uplink="dsl", previous_state="up"),
        entry(3, 20, "down", event="renamed", uplink="fibre", reason="called dsl before"),
    ]
    assert [(one.id, one.uplink, one.until) for one in incidents(story, NOW)] == [
        (2, "fibre", None),
        (1, "fibre", iso(BEGIN + 20)),
    ]


def test_evidence_has_a_bound() -> None:
    story = [entry(n, n, "down", previous_state="down", lasted_s=1.0) for n in range(1, 200)]
    assert len(incidents(story, NOW)[0].evidence) == MOST_EVIDENCE


def test_what_lasts_and_no_entry_tells_is_known_from_what_was_recorded() -> None:
    one = Standing(
        uplink="fibre",
        interface="eth1",
        state=UplinkState.DOWN,
        reason="no carrier",
        families={},
        ends={},
        since=50.0,
        ends_since=50.0,
    )
    (found,) = lasting({"fibre": one}, [], BEGIN - 1000.0, NOW)
    assert (found.id, found.since, found.until, found.reason) == (0, iso(BEGIN - 950), None, "no carrier")
    assert lasting({"fibre": one}, [entry(1, 10, "down")], BEGIN, NOW) == []


def test_a_beat_has_the_reasons_of_outages_that_touch_it_each_once() -> None:
    story = [
        entry(1, 10, "down", previous_state="up", reason="no carrier"),
        entry(2, 20, "up", previous_state="down"),
        entry(3, 30, "down", previous_state="up", reason="no carrier"),
        entry(4, 2000, "up", previous_state="down"),
        entry(5, 2500, "degraded", previous_state="up"),
    ]
    found = incidents(story, NOW)
    begin = int(BEGIN)
    found_reasons = reasons(found, [(begin, begin + 1800), (begin + 1800, begin + 3600), (begin + 3600, begin + 5400)])
    assert found_reasons == {("fibre", begin): ["no carrier"], ("fibre", begin + 1800): ["no carrier"]}
    assert [one.id for one in touching(found, BEGIN + 15, BEGIN + 25)] == [1]
