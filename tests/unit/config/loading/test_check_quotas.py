import pytest

from polywan.config import ConfigError, load_text
from polywan.config.model.quota import Quota

LTE = '[uplinks.lte]\ninterface = "wwan0"\n'


def found(text: str) -> list[tuple[int, str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return [(int(p.where.rpartition(":")[2]), p.key, p.message, p.hint) for p in caught.value.problems]


def quota(text: str) -> Quota:
    read = load_text(f"{LTE}quota = {{{text}}}\n").uplinks["lte"].quota
    assert read is not None
    return read


def test_an_amount_alone_is_a_whole_quota() -> None:
    read = quota('monthly = "50GB"')
    assert (read.monthly, read.billing_day, read.soft, read.counts) == (50_000_000_000, None, 0.9, "both")
    assert (read.at_soft, read.at_hard) == ("less", "standby")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('"50GB"', 50 * 10**9),
        ('"50 gb"', 50 * 10**9),
        ('"1.5TB"', 1_500 * 10**9),
        ('"500MB"', 500 * 10**6),
        ('"2GiB"', 2 * 2**30),
        ("7000000", 7_000_000),
    ],
)
def test_an_amount_of_data_has_a_unit_or_is_a_plain_number_of_bytes(text: str, count: int) -> None:
    assert quota(f"prepaid = {text}").prepaid == count


@pytest.mark.parametrize("text", ['"50"', '"GB"', '"-1GB"', '"1e3GB"', "true", "[]", "5.5", '"0GB"', "-1", '"9999TB"'])
def test_an_amount_that_makes_no_sense_is_refused(text: str) -> None:
    ((line, key, message, _),) = found(f"{LTE}[uplinks.lte.quota]\nmonthly = {text}\n")
    assert (line, key) == (4, "uplinks.lte.quota.monthly")
    assert message.startswith('expected an amount of data such as "50GB" ("1MB" to "1000TB"), got ')


def test_a_bandwidth_is_no_amount_of_data() -> None:
    ((_, _, _, hint),) = found(f'{LTE}quota = {{monthly = "50Mbit"}}\n')
    assert hint.startswith("that is a bandwidth")


@pytest.mark.parametrize(("text", "soft"), [('"80%"', 0.8), ("0.8", 0.8), ('"40GB"', 40 * 10**9), ("1", 1.0)])
def test_the_soft_limit_is_a_share_or_an_amount(text: str, soft: float) -> None:
    read = quota(f'monthly = "50GB", soft = {text}')
    assert (read.soft, type(read.soft)) == (soft, type(soft))


@pytest.mark.parametrize("text", ['"120%"', '"much"', "1.5", "-1", "true", '"-5%"'])
def test_a_soft_limit_that_makes_no_sense_is_refused(text: str) -> None:
    ((_, key, message, _),) = found(f'{LTE}quota = {{monthly = "50GB", soft = {text}}}\n')
    assert key == "uplinks.lte.quota.soft"
    assert message.startswith('expected a share such as "90%", or an amount of data such as "45GB", got ')


def test_a_soft_limit_above_the_quota_is_refused() -> None:
    ((_, key, message, _),) = found(f'{LTE}quota = {{monthly = "50GB", soft = "60GB"}}\n')
    assert (key, message) == ("uplinks.lte.quota.soft", "is more than monthly")


@pytest.mark.parametrize("day", ["0", "32", '"1"', "1.5"])
def test_a_billing_day_is_a_day_of_the_month(day: str) -> None:
    ((_, key, message, _),) = found(f'{LTE}quota = {{monthly = "50GB", billing_day = {day}}}\n')
    assert key == "uplinks.lte.quota.billing_day"
    assert message.startswith("expected a whole number from 1 to 31, got ")


def test_a_quota_without_an_amount_is_refused() -> None:
    ((_, key, message, _),) = found(f"{LTE}quota = {{}}\n")
    assert (key, message) == ("uplinks.lte.quota", "says no amount")


def test_a_quota_that_is_no_table_is_not_advised_to_be_empty() -> None:
    assert found(f"{LTE}quota = true\n") == [(3, "uplinks.lte.quota", "expected a table, got true", "")]


def test_a_quota_is_monthly_or_prepaid() -> None:
    ((_, key, message, _),) = found(f'{LTE}quota = {{monthly = "50GB", prepaid = "10GB"}}\n')
    assert (key, message) == ("uplinks.lte.quota.prepaid", "cannot be used together with monthly")


def test_a_prepaid_quota_has_no_billing_day() -> None:
    ((_, key, message, _),) = found(f'{LTE}quota = {{prepaid = "10GB", billing_day = 3}}\n')
    assert (key, message) == ("uplinks.lte.quota.billing_day", "has no effect without monthly")


def test_the_hard_limit_is_no_milder_than_the_soft_one() -> None:
    text = 'monthly = "50GB", at_soft = "standby", at_hard = "less"'
    ((_, key, message, hint),) = found(f"{LTE}quota = {{{text}}}\n")
    assert (key, message) == ("uplinks.lte.quota.at_hard", '"less" is milder than at_soft = "standby"')
    assert hint == 'write at_hard = "standby", too'


def test_a_default_that_is_milder_than_the_soft_limit_is_told() -> None:
    ((_, key, message, _),) = found(f'{LTE}quota = {{monthly = "50GB", at_soft = "block"}}\n')
    assert key == "uplinks.lte.quota.at_soft"
    assert message == '"block" is harsher than at_hard, which is "standby" by default'


def test_a_device_that_several_uplinks_share_cannot_be_counted_for_one_of_them() -> None:
    text = (
        '[uplinks.a]\ninterface = "eth1"\ngateway = "192.0.2.1"\nquota = {monthly = "50GB"}\n'
        '[uplinks.b]\ninterface = "eth1"\ngateway = "192.0.2.2"\n'
    )
    ((line, key, message, _),) = found(text)
    assert (line, key) == (4, "uplinks.a.quota")
    assert message.startswith('cannot be counted: uplink "b" has the same device "eth1"')


def test_all_faults_of_a_file_are_told_at_once() -> None:
    text = (
        f'{LTE}[uplinks.lte.quota]\nmonthly = "50Mbit"\nbilling_day = 40\nsoft = "200%"\nat_hard = "blok"\ncount = 1\n'
    )
    assert [line for line, _, _, _ in found(text)] == [4, 5, 6, 7, 8]
