"""What is counted of a device, whatever replaces it."""

from __future__ import annotations

from polywan.core.status.rates import Counters, Sample
from polywan.core.status.tally import Bytes, Count, Tally, resumed, taken


def seen(*looks: Counters | None) -> Tally:
    tally: Tally = {}
    for look in looks:
        tally = taken(tally, sample(look), ["ppp0"])
    return tally


def sample(look: Counters | None) -> Sample:
    return Sample(0.0, {} if look is None else {"ppp0": look})


def test_bytes_are_counted_from_the_mark() -> None:
    tally = seen(Counters(5, 1000, 100))
    marked = {"ppp0": tally["ppp0"].marked(["state"])}
    later = taken(marked, sample(Counters(5, 1500, 130)), ["ppp0"])
    assert later["ppp0"].since("state") == Bytes(500, 30)


def test_a_device_that_is_replaced_goes_on_with_all_that_the_new_one_counts() -> None:
    marked = {"ppp0": seen(Counters(5, 1000, 100))["ppp0"].marked(["state"])}
    later = taken(marked, sample(None), ["ppp0"])
    later = taken(later, sample(Counters(9, 70, 7)), ["ppp0"])
    assert later["ppp0"].since("state") == Bytes(70, 7)


def test_a_counter_that_is_reset_is_no_negative_number() -> None:
    marked = {"ppp0": seen(Counters(5, 1000, 100))["ppp0"].marked(["state"])}
    later = taken(marked, sample(Counters(5, 40, 4)), ["ppp0"])
    assert later["ppp0"].since("state") == Bytes(40, 4)


def test_a_device_that_appears_later_is_counted_whole() -> None:
    marked = {"ppp0": seen(None)["ppp0"].marked(["state"])}
    later = taken(marked, sample(Counters(5, 700, 70)), ["ppp0"])
    assert later["ppp0"].since("state") == Bytes(700, 70)


def test_what_was_never_marked_is_not_known() -> None:
    assert seen(Counters(5, 1, 1))["ppp0"].since("state") is None


def test_a_device_that_is_no_uplinks_any_more_is_forgotten() -> None:
    assert taken(seen(Counters(5, 1, 1)), sample(Counters(5, 2, 2)), []) == {}


def test_the_next_daemon_goes_on_counting_where_the_device_has() -> None:
    inherited = {"ppp0": Count(now=Counters(5, 1000, 100), marks={"state": Bytes(400, 40)})}
    assert resumed(inherited, sample(Counters(5, 1200, 120)))["ppp0"].since("state") == Bytes(800, 80)


def test_of_another_device_the_next_daemon_knows_nothing() -> None:
    inherited = {"ppp0": Count(now=Counters(5, 1000, 100), marks={"state": Bytes(400, 40)})}
    assert resumed(inherited, sample(Counters(6, 1200, 120))) == {}
    assert resumed(inherited, sample(Counters(5, 12, 120))) == {}
    assert resumed(inherited, sample(None)) == {}
