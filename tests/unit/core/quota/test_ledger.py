from dataclasses import replace
from datetime import UTC, datetime

from polywan.config.model.quota import Quota
from polywan.core.engine.renaming import followed
from polywan.core.quota.counting import Seen
from polywan.core.quota.ledger import News, Topic, applied, configured, entered, looked, passed, save_due
from polywan.core.quota.limits import NO_QUOTAS, Level, Quotas
from polywan.core.quota.usage import begun
from polywan.core.resolved import resolve
from polywan.core.state.state import Known, State
from support.engine_world import config

GB = 10**9
NOW = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
QUOTAS = {"u1": Quota.model_validate({"monthly": "50GB"}), "u2": Quota.model_validate({"prepaid": "10GB"})}


def look(known: Quotas, *gigabytes: float) -> Quotas:
    seen = {f"u{n}": Seen(f"wan{n}", n, "boot", round(each * GB), 0) for n, each in enumerate(gigabytes, start=1)}
    return looked(known, QUOTAS, seen, NOW, UTC)


def test_each_uplink_is_counted_by_itself() -> None:
    known = look(look(NO_QUOTAS, 1, 2), 47, 13)
    assert {name: usage.used for name, usage in known.usages.items()} == {"u1": 46 * GB, "u2": 11 * GB}
    assert known.restrictions == {"u1": "less", "u2": "standby"}


def test_a_limit_is_news_once() -> None:
    first, second = look(NO_QUOTAS, 0), look(look(NO_QUOTAS, 0), 46)
    (news,) = passed(first, second, QUOTAS)
    assert (news.topic, news.warning) == (Topic.SOFT, True)
    assert (news.uplink, news.text[:8]) == ("u1", "46.0 GB ")
    assert news.text.startswith("46.0 GB of 50.0 GB used (92 %) until 2026-12-01; the soft limit of 45.0 GB is pas")
    assert [*passed(second, look(second, 47), QUOTAS)] == []


def test_a_new_daemon_reports_what_has_changed_since_the_one_before() -> None:
    known = config(1)
    limited = known.uplinks["u1"].model_copy(update={"quota": QUOTAS["u1"]})
    file = resolve(known.model_copy(update={"uplinks": {"u1": limited}}), {})
    kept = applied(Quotas(usages=look(look(NO_QUOTAS, 0), 46).usages), file, first=True)
    assert [*passed(kept, look(kept, 47), QUOTAS)] == []
    assert [news.topic for news in passed(kept, look(kept, 51), QUOTAS)] == [Topic.HARD]


def test_what_is_counted_while_nothing_changes_keeps_the_objects_that_decisions_look_at() -> None:
    known = look(look(NO_QUOTAS, 0), 46)
    after = look(known, 47)
    assert after.restrictions is known.restrictions
    assert after.logged is known.logged


def test_an_entry_for_an_uplink_without_a_quota_changes_nothing() -> None:
    assert entered(NO_QUOTAS, QUOTAS, "u9", (GB, None), NOW, UTC) == (NO_QUOTAS, ())


def test_a_reading_before_anything_was_counted_is_taken() -> None:
    known, news = entered(NO_QUOTAS, QUOTAS, "u1", (46 * GB, None), NOW, UTC)
    assert known.restrictions == {"u1": "less"}
    assert news == (News(Topic.READING, "u1", "the provider says 46.0 GB used; polywan has counted 0 B"),)


def test_a_reading_and_what_was_bought_may_be_entered_together() -> None:
    known, news = entered(NO_QUOTAS, QUOTAS, "u2", (8 * GB, 5 * GB), NOW, UTC)
    assert [each.topic for each in news] == [Topic.READING, Topic.BOUGHT]
    assert (known.usages["u2"].used, known.usages["u2"].bought) == (0, 7 * GB)


def test_another_file_is_in_force_with_its_first_decision() -> None:
    known = look(look(NO_QUOTAS, 0), 46)
    other = config(1).model_copy(
        update={"uplinks": {"u1": config(1).uplinks["u1"].model_copy(update={"quota": Quota(monthly=46 * GB)})}}
    )
    after = applied(known, resolve(other, {}), first=False)
    assert after.restrictions == {"u1": "standby"}
    assert after.logged == {"u1": Level.SOFT}
    assert configured(resolve(other, {})) == {"u1": Quota(monthly=46 * GB)}


def test_the_use_of_a_quota_that_is_not_in_the_file_is_kept_and_restricts_nobody() -> None:
    known = look(look(NO_QUOTAS, 0), 46)
    after = applied(known, resolve(config(1), {}), first=False)
    assert (after.usages, after.restrictions, after.logged) == (known.usages, {}, {})


def test_a_quota_that_comes_back_to_the_file_used_up_is_told_again() -> None:
    known = look(look(NO_QUOTAS, 0), 46)
    without = applied(known, resolve(config(1), {}), first=False)
    limited = config(1).uplinks["u1"].model_copy(update={"quota": QUOTAS["u1"]})
    file = resolve(config(1).model_copy(update={"uplinks": {"u1": limited}}), {})
    back = applied(without, file, first=False)
    assert back.restrictions == {"u1": "less"}
    assert [news.topic for news in passed(back, look(back, 46), QUOTAS)] == [Topic.SOFT]


def test_what_is_used_follows_an_uplink_to_its_other_name() -> None:
    known = look(look(NO_QUOTAS, 0, 0), 46, 1)
    state = followed(State(known=Known(quotas=known)), {"u1": "u2", "u2": "u1"})
    assert state.known.quotas.usages == {"u2": known.usages["u1"], "u1": known.usages["u2"]}
    assert state.known.quotas.logged == {"u2": Level.SOFT, "u1": Level.WITHIN}


def test_what_is_kept_without_a_quota_has_a_bound() -> None:
    usage = begun(QUOTAS["u1"], NOW, UTC)
    known = Quotas(usages={f"x{n}": usage for n in range(1000)})
    assert len(applied(known, resolve(config(1), {}), first=False).usages) == 256


def test_what_was_counted_is_written_every_eight_seconds_if_it_is_worth_it() -> None:
    saved = look(look(NO_QUOTAS, 0), 1)
    little, much = look(saved, 1 + 1e-6), look(saved, 1.1)
    assert [save_due(saved, much, since) for since in (0.5, 7.9, 8.0)] == [False, False, True]
    assert [save_due(saved, little, since) for since in (8.0, 599.0, 600.0)] == [False, False, True]
    assert not save_due(saved, saved, 1000.0)


def test_another_device_is_written_at_the_next_occasion() -> None:
    saved = look(look(NO_QUOTAS, 0), 1)
    usage = saved.usages["u1"]
    assert usage.seen is not None
    other = replace(saved, usages={"u1": replace(usage, seen=usage.seen._replace(ifindex=99))})
    assert save_due(saved, other, 8.0)


def test_a_change_for_an_uplink_is_written_within_a_second() -> None:
    saved = look(look(NO_QUOTAS, 0), 1)
    assert save_due(saved, look(saved, 47), 1.0)
