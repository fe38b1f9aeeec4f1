import pytest

from polywan.config.model.quota import Quota
from polywan.core.quota.limits import Level, action, level, limits, restrictions
from polywan.core.quota.usage import QuotaKind, Usage

GB = 10**9


def usage(gigabytes: float, bought: int | None = None) -> Usage:
    return Usage(kind=QuotaKind.MONTHLY, begins=0.0, first=0.0, counted=round(gigabytes * GB), bought=bought)


def quota(**keys: object) -> Quota:
    return Quota.model_validate({"monthly": "50GB", **keys})


@pytest.mark.parametrize(
    ("used", "expected"), [(0, "within"), (44.9, "within"), (45, "soft"), (49.9, "soft"), (50, "hard"), (80, "hard")]
)
def test_a_limit_is_passed_once_it_is_reached(used: float, expected: str) -> None:
    assert level(usage(used), quota()) is Level(expected)


def test_what_was_bought_moves_both_limits() -> None:
    found = limits(usage(0, bought=10 * GB), quota())
    assert (found.soft, found.hard) == (54 * GB, 60 * GB)


def test_an_amount_as_soft_limit_stays_where_it_is_and_is_never_above_the_hard_one() -> None:
    assert limits(usage(0, bought=10 * GB), quota(soft="45GB")).soft == 45 * GB
    bucket = Quota.model_validate({"prepaid": "10GB", "soft": "45GB"})
    assert limits(Usage(kind=QuotaKind.PREPAID, begins=0.0, first=0.0), bucket).soft == 10 * GB


def test_what_happens_is_what_the_file_says_for_the_limit() -> None:
    both = quota(at_soft="standby", at_hard="block")
    assert [action(usage(used), both) for used in (1, 46, 51)] == [None, "standby", "block"]


def test_choosing_is_told_of_those_only_whom_it_concerns() -> None:
    quotas = {"a": quota(), "b": quota(), "c": quota(at_hard="keep", at_soft="keep"), "d": quota()}
    usages = {"a": usage(1), "b": usage(46), "c": usage(51)}
    assert restrictions(quotas, usages) == {"b": "less"}
