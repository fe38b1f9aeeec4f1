"""Whatever connections do: their order tells nothing, and an answer never makes an uplink more suspect."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from polywan.config import HealthSettings
from polywan.core.health import passive
from polywan.core.health.passive import ANSWERS, AttemptHistory, ConnectionAttempt, Opening, Silence, noted, silence
from polywan.core.health.rounds import Health, initial, timeout_of
from polywan.core.net import Family

NOW = 100.0
KEY = ("u1", Family.V4)
UP = initial(Health.UP, "", 0.0)


@st.composite
def attempts(draw: st.DrawFn, most: int = 30) -> list[ConnectionAttempt]:
    """Attempts of the last seconds, answered or not, more of the latest ones in vain."""
    ages = draw(st.lists(st.floats(0.0, passive.MEMORY - 0.01), max_size=most))
    found = []
    for number, age in enumerate(ages):
        began = NOW - age
        answered = draw(st.none() | st.floats(began, NOW)) if age < 1.0 else draw(st.just(began) | st.none())
        server = IPv4Address(0xCB007100 + draw(st.integers(0, 5)))
        found.append(ConnectionAttempt(number=number, destination=server, began=began, answered=answered))
    return found


def weight(found: Silence) -> tuple[int, int]:
    return found.attempts, found.destinations


@given(attempts(), st.randoms(use_true_random=False))
def test_the_order_of_attempts_does_not_matter(given_: list[ConnectionAttempt], chance: object) -> None:
    shuffled = list(given_)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random that hypothesis controls
    assert silence(shuffled, passive.LEAST_WAIT, NOW) == silence(given_, passive.LEAST_WAIT, NOW)


@given(st.lists(st.booleans(), max_size=12), st.data())
def test_the_order_of_what_is_heard_at_once_does_not_matter(outcomes: list[bool], data: st.DataObject) -> None:
    opened = [Opening(number=n, mark=0x100, family=Family.V4, destination=IPv4Address(n)) for n in range(len(outcomes))]
    answered = {n for n, well in enumerate(outcomes) if well}
    together = noted(AttemptHistory(), opened, answered, NOW)
    apart = AttemptHistory()
    for opening in data.draw(st.permutations(opened)):
        apart = noted(apart, [opening], (), NOW)
    for number in data.draw(st.permutations(sorted(answered))):
        apart = noted(apart, (), {number}, NOW)
    assert sorted(apart.attempts, key=lambda a: a.number) == list(together.attempts)


@given(attempts(), st.data())
def test_an_answer_never_adds_to_the_attempts_in_vain(given_: list[ConnectionAttempt], data: st.DataObject) -> None:
    # What had been heard before is needed to compare with; from then on an answer can only excuse.
    before = [
        ConnectionAttempt(number=1000 + n, destination=IPv4Address(n), began=NOW - 4.9, answered=NOW - 4.8)
        for n in range(ANSWERS)
    ]
    pool = [*before, *given_]
    silent = [n for n, a in enumerate(pool) if a.answered is None]
    if not silent:
        return
    index = data.draw(st.sampled_from(silent))
    answered = replace(pool[index], answered=data.draw(st.floats(pool[index].began, NOW)))
    changed = [*pool[:index], answered, *pool[index + 1 :]]
    earlier, later = silence(pool, passive.LEAST_WAIT, NOW), silence(changed, passive.LEAST_WAIT, NOW)
    assert weight(later) <= weight(earlier)
    assert later.destinations <= earlier.destinations


@given(attempts(), st.floats(0.0, passive.LINK_QUIET - 0.01))
def test_nothing_is_a_wall_soon_after_an_answer(given_: list[ConnectionAttempt], ago: float) -> None:
    new = ConnectionAttempt(number=1000, destination=IPv4Address(1), began=NOW - passive.MEMORY / 2, answered=NOW - ago)
    assert not silence([*given_, new], passive.LEAST_WAIT, NOW).wall


@given(st.integers(1, 10), st.floats(0.05, 5.0), st.floats(0.0, 2.0))
def test_an_alarm_is_bounded_whatever_the_settings(fall: int, timeout: float, rtt: float) -> None:
    settings = HealthSettings(fall=fall, timeout=timeout, interval=max(timeout, 1.0))
    probes = replace(UP, quality=replace(UP.quality, rtt=rtt))
    wall = [
        ConnectionAttempt(
            number=n, destination=IPv4Address(n), began=NOW - 4.9 + 0.01 * n, answered=NOW - 4.8 if n < 4 else None
        )
        for n in range(12)
    ]
    watches, raised = passive.heard({KEY: AttemptHistory(tuple(wall))}, {KEY: (probes, settings)}, {}, (), NOW)
    assert raised == (KEY,)
    watch, rounds = watches[KEY], 0
    longest = timeout_of(probes, settings)
    while (due := passive.due(watch, probes, settings)) < float("inf"):
        assert due >= NOW
        assert min(timeout, passive.LEAST_TIMEOUT) <= passive.timeout(watch, probes, settings, due) <= longest
        watch = passive.sent(watch)
        rounds += 1
    assert rounds == fall
