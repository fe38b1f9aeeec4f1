"""Bytes by hour: nothing is lost and nothing is counted twice, whatever becomes of devices and daemons."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.measurements.volumes import (
    NO_VOLUME,
    DeviceCounts,
    StoredDevice,
    UplinkBytes,
    Volumes,
    added,
    hour_of,
    renamed,
    without,
)
from polywan.core.status.rates import Counters
from polywan.core.status.tally import Bytes

BOOT = "boot"


def looked(*looks: Counters | None) -> tuple[DeviceCounts, Bytes]:
    counts, total = DeviceCounts(), Bytes(0, 0)
    for look in looks:
        counts, moved = counts.looked({} if look is None else {"ppp0": look}, ["ppp0"])
        more = moved.get("ppp0", Bytes(0, 0))
        total = Bytes(total.rx + more.rx, total.tx + more.tx)
    return counts, total


def test_what_a_device_had_counted_before_it_was_an_uplinks_is_not_counted() -> None:
    assert looked(Counters(5, 1000, 100), Counters(5, 1300, 110))[1] == Bytes(300, 10)


def test_a_device_that_appears_later_and_one_that_replaces_it_are_counted_whole() -> None:
    assert looked(None, Counters(5, 70, 7), None, Counters(6, 30, 3))[1] == Bytes(100, 10)


def test_the_next_daemon_counts_what_went_by_while_none_ran() -> None:
    counts, _ = looked(Counters(5, 1500, 160), Counters(5, 1600, 170))
    stored = {"ppp0": StoredDevice(BOOT, Counters(5, 1000, 100)), "eth9": StoredDevice(BOOT, Counters(2, 1, 1))}
    assert counts.gap(stored, BOOT) == {"ppp0": Bytes(500, 60)}


def test_after_a_boot_a_device_is_counted_from_zero() -> None:
    counts, _ = looked(Counters(5, 1500, 160))
    assert counts.gap({"ppp0": StoredDevice("earlier", Counters(5, 1000, 100))}, BOOT) == {"ppp0": Bytes(1500, 160)}


def test_a_device_that_no_daemon_before_has_looked_at_begins_with_nothing() -> None:
    assert looked(Counters(5, 1500, 160))[0].gap({}, BOOT) == {}


def test_a_device_that_left_the_file_is_forgotten() -> None:
    counts, _ = looked(Counters(5, 1500, 160))
    counts, moved = counts.looked({"ppp0": Counters(5, 9000, 900)}, [])
    assert (counts, moved) == (DeviceCounts(), {})
    assert counts.looked({"ppp0": Counters(5, 9900, 990)}, ["ppp0"])[1] == {}


@given(st.lists(st.tuples(st.sampled_from(["traffic", "replaced", "restart", "boot"]), st.integers(0, 1 << 40))))
def test_all_that_devices_count_is_counted_once_over_restarts_boots_and_other_devices(
    story: list[tuple[str, int]],
) -> None:
    device, boot, true, found = Counters(1, 0, 0), 0, 0, 0
    counts, _ = DeviceCounts().looked({"ppp0": device}, ["ppp0"])
    for what, number in story:
        before = counts.last["ppp0"]
        assert before is not None
        if what == "replaced":
            device = Counters(device.ifindex + 1, 0, 0)
        elif what == "boot":
            device, boot = Counters(1, 0, 0), boot + 1
        device = Counters(device.ifindex, device.rx + number, device.tx)
        true += number
        if what in ("restart", "boot"):
            stored = {"ppp0": StoredDevice(str(boot - (what == "boot")), before)}
            counts, _ = DeviceCounts().looked({"ppp0": device}, ["ppp0"])
            found += counts.gap(stored, str(boot))["ppp0"].rx
        else:
            counts, moved = counts.looked({"ppp0": device}, ["ppp0"])
            found += moved["ppp0"].rx
    assert found == true


def test_a_month_begins_with_an_hour_in_every_zone() -> None:
    india = 5 * 3600 + 1800
    midnight = 1_796_063_400  # 2026-12-01T00:00+05:30
    assert hour_of(midnight, india) == midnight
    assert hour_of(midnight - 0.5, india) == midnight - 3600
    assert hour_of(7200.9, 0) == 7200


VOLUMES = st.dictionaries(
    st.tuples(st.integers(0, 3), st.sampled_from("abc")), st.builds(UplinkBytes, *[st.integers(0, 9)] * 3), max_size=6
)


@given(VOLUMES, VOLUMES)
def test_what_was_added_and_written_is_gone_again(some: Volumes, more: Volumes) -> None:
    assert without(added(some, more), more) == {key: one for key, one in some.items() if one != NO_VOLUME}


@given(VOLUMES)
def test_other_names_change_no_sum(volumes: Volumes) -> None:
    exchanged = renamed(volumes, {"a": "b", "b": "a"})
    assert renamed(exchanged, {"a": "b", "b": "a"}) == volumes
    merged = renamed(volumes, {"a": "c"})
    assert sum(one.rx for one in merged.values()) == sum(one.rx for one in volumes.values())
