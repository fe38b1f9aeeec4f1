from polywan.core.quota.counting import NOTHING_MOVED, Moved, Seen, moved

BEFORE = Seen("ppp0", 4, "boot", 1000, 100)


def test_a_device_that_counts_on_has_moved_the_difference() -> None:
    assert moved(BEFORE, Seen("ppp0", 4, "boot", 1500, 130)) == Moved(500, 30)


def test_another_device_of_that_name_has_moved_all_it_shows() -> None:
    assert moved(BEFORE, Seen("ppp0", 5, "boot", 5000, 300)) == Moved(5000, 300)


def test_a_device_after_a_boot_has_moved_all_it_shows() -> None:
    assert moved(BEFORE, Seen("ppp0", 4, "later", 5000, 300)) == Moved(5000, 300)


def test_a_device_that_counts_from_zero_again_has_moved_all_it_shows() -> None:
    assert moved(BEFORE, Seen("ppp0", 4, "boot", 20, 300)) == Moved(20, 300)


def test_what_a_device_moved_before_anybody_looked_does_not_count() -> None:
    assert moved(None, BEFORE) == NOTHING_MOVED


def test_what_a_device_of_another_name_moved_before_does_not_count() -> None:
    assert moved(BEFORE, Seen("wwan0", 4, "boot", 5000, 300)) == NOTHING_MOVED
