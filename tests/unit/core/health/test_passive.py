"""New connections without answers: what is a wall, what an alarm does, and what it must never do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface
from itertools import count, pairwise

import pytest

from polywan.config import HealthSettings
from polywan.core.health import passive
from polywan.core.health.passive import AttemptHistory, ConnectionAttempt, Opening, noted, silence
from polywan.core.health.quality import UNKNOWN
from polywan.core.health.rounds import Health, ProbeState, initial
from polywan.core.net import FAMILIES, Family, IPAddress, Mark
from polywan.core.state.events import NewConnections
from polywan.core.status.document import document
from polywan.core.world.observed import Address, Link
from support.timeline import Sim

NOW = 100.0
WAIT = passive.LEAST_WAIT
SETTINGS = HealthSettings()
UP = initial(Health.UP, "", 0.0)
KEY = ("u1", Family.V4)
numbers = count(1)


def to(number: int) -> IPv4Address:
    return IPv4Address(0xCB007100 + number)


def before(answered: int = 5, unanswered: int = 0) -> list[ConnectionAttempt]:
    """Attempts of a while ago, and when they were answered."""
    begun = [NOW - 3 + 0.01 * n for n in range(answered + unanswered)]
    return [
        ConnectionAttempt(number=n, destination=to(n), began=at, answered=at + 0.05 if n >= unanswered else None)
        for n, at in enumerate(begun)
    ]


def vain(number: int, destinations: int = 3, age: float = 0.4) -> list[ConnectionAttempt]:
    return [
        ConnectionAttempt(number=1000 + n, destination=to(n % destinations), began=NOW - age) for n in range(number)
    ]


def wall(attempts: Iterable[ConnectionAttempt]) -> bool:
    return silence(list(attempts), WAIT, NOW).wall


def test_five_attempts_in_vain_to_three_servers_are_a_wall() -> None:
    assert wall(before() + vain(5, 3))


def test_four_attempts_are_no_wall() -> None:
    assert not wall(before() + vain(4, 4))


def test_one_or_two_dead_servers_are_no_wall() -> None:
    assert not wall(before() + vain(50, 1))
    assert not wall(before() + vain(50, 2))


def test_an_answer_to_any_attempt_ends_the_wall() -> None:
    attempts = before() + vain(50, 10)
    assert not wall([*attempts[:-1], replace(attempts[-1], answered=NOW)])


def test_answers_that_only_come_late_are_no_wall() -> None:
    # A queue grows: whoever began in the last second waits, but older ones are answered all the time.
    late = [
        ConnectionAttempt(number=n, destination=to(n), began=at, answered=at + 1.0 if at + 1.0 < NOW else None)
        for n in range(150)
        if (at := NOW - 3 + 0.02 * n) < NOW
    ]
    assert not wall(late)


def test_attempts_that_could_not_be_answered_yet_do_not_count() -> None:
    assert not wall(before() + vain(20, 10, age=0.05))
    slow = replace(UP, quality=replace(UNKNOWN, rtt=0.6))
    _, raised = passive.heard(
        {KEY: AttemptHistory(tuple(before() + vain(20, 10)))}, {KEY: (slow, SETTINGS)}, {}, (), NOW
    )
    assert raised == ()


def test_an_uplink_that_never_answered_is_not_suspected() -> None:
    assert not wall(vain(100, 50))
    assert not wall(before(answered=2) + vain(100, 50))


def test_a_scan_of_dead_addresses_is_no_wall_where_few_answered_before() -> None:
    assert not wall(before(answered=4, unanswered=200) + vain(100, 100))


def watch_with_wall() -> AttemptHistory:
    return AttemptHistory(tuple(before() + vain(6, 6)))


def raised_at(now: float, watch: AttemptHistory, probes: ProbeState = UP) -> tuple[AttemptHistory, bool]:
    watches, raised = passive.heard({KEY: watch}, {KEY: (probes, SETTINGS)}, {}, (), now)
    return watches[KEY], bool(raised)


def test_a_wall_raises_one_alarm_and_no_second_before_an_answer() -> None:
    watch, raised = raised_at(NOW, watch_with_wall())
    assert raised
    for later in (0.1, 0.5, 1.5, 3.0):
        watch, raised = raised_at(NOW + later, watch)
        assert not raised


def test_false_alarms_are_a_second_apart_at_first_and_then_ever_longer() -> None:
    watch, now, alarms = AttemptHistory(), NOW, []
    for tick in range(1200):
        now = NOW + 0.1 * tick
        opened = [Opening(number=next(numbers), mark=0x100, family=Family.V4, destination=to(n)) for n in range(3)]
        # Half a second of answers, half a second of none.
        answered = {o.number for o in opened} if tick % 10 < 5 else set()
        watches, raised = passive.heard({KEY: watch}, {KEY: (UP, SETTINGS)}, {KEY: opened}, answered, now)
        watch = watches[KEY]
        alarms += [now] if raised else []
    gaps = [later - earlier for earlier, later in pairwise(alarms)]
    assert min(gaps) > 0.99
    assert gaps[-1] >= 16
    assert len(alarms) < 15


def test_the_rounds_of_an_alarm_follow_quickly_and_end_together() -> None:
    watch, _ = raised_at(NOW, watch_with_wall())
    ends, now = [], NOW
    for _ in range(SETTINGS.fall):
        now = passive.due(watch, UP, SETTINGS)
        ends.append(now + passive.timeout(watch, UP, SETTINGS, now))
        watch = passive.sent(watch)
    assert now == pytest.approx(NOW + 0.2)
    assert ends == pytest.approx([NOW + 0.35] * SETTINGS.fall)
    assert passive.due(watch, UP, SETTINGS) == float("inf")


def test_a_round_has_four_round_trips_and_never_more_than_its_timeout() -> None:
    slow = replace(UP, quality=replace(UNKNOWN, rtt=0.1))
    very_slow = replace(UP, quality=replace(UNKNOWN, rtt=0.6))
    watch = replace(watch_with_wall(), attempts=tuple(before() + vain(6, 6, age=2.0)))
    for probes, last in ((slow, 0.4), (very_slow, SETTINGS.timeout)):
        alarmed, raised = raised_at(NOW, watch, probes)
        assert raised
        alarmed = passive.sent(passive.sent(alarmed))
        assert passive.timeout(alarmed, probes, SETTINGS, NOW + 0.2) == pytest.approx(last)


def test_an_answer_to_a_round_of_the_alarm_ends_it() -> None:
    watch, _ = raised_at(NOW, watch_with_wall())
    well = replace(UP, answered=NOW)
    assert passive.due(watch, well, SETTINGS) == float("inf")
    assert passive.timeout(watch, well, SETTINGS, NOW) == SETTINGS.timeout


def test_families_that_fall_silent_together_need_half_the_attempts_each() -> None:
    def of(family: Family) -> AttemptHistory:
        shift = 100 * (family is Family.V6)
        vainly = [replace(a, number=a.number + shift, destination=to(shift + a.number)) for a in vain(3, 3)]
        return AttemptHistory(tuple(before() + vainly))

    keys = [("u1", family) for family in FAMILIES]
    _, raised = passive.heard({key: of(key[1]) for key in keys}, dict.fromkeys(keys, (UP, SETTINGS)), {}, (), NOW)
    assert set(raised) == set(keys)


def test_a_family_that_answers_vouches_for_the_other() -> None:
    heard = [replace(a, answered=NOW - 0.1) for a in vain(1)]
    watches = {
        ("u1", Family.V4): AttemptHistory(tuple(before() + vain(4, 4))),
        ("u1", Family.V6): AttemptHistory(tuple(heard)),
    }
    _, raised = passive.heard(watches, dict.fromkeys(watches, (UP, SETTINGS)), {}, (), NOW)
    assert raised == ()


def test_an_attempt_is_forgotten_after_a_while() -> None:
    watch = noted(AttemptHistory(), [Opening(number=1, mark=0x100, family=Family.V4, destination=to(1))], (), NOW)
    assert len(noted(watch, (), (), NOW + passive.MEMORY - 0.1).attempts) == 1
    assert noted(watch, (), (), NOW + passive.MEMORY).attempts == ()


class Playing(Sim):
    @property
    def alarms(self) -> list[str]:
        return [line for line in self.lines if line.startswith("passive.alarm")]

    def state_of(self, name: str) -> str:
        return str(self.state.decision.views[name].state)


class Load:
    """New connections by one uplink each 20 ms, answered at the next look unless the uplink is silent."""

    def __init__(self, sim: Playing, uplink: str, destinations: list[IPAddress]) -> None:
        self.sim, self.destinations = sim, destinations
        self.mark = sim.state.known.numbers[uplink].mark
        self.turn = count()

    def run(self, until: float, *, answered: bool = True, dead: frozenset[IPAddress] = frozenset()) -> None:
        while self.sim.now < until:
            opened = [
                Opening(number=next(numbers), mark=self.mark, family=Family.V4, destination=self._next())
                for _ in range(passive.SAMPLE)
            ]
            well = frozenset(o.number for o in opened if answered and o.destination not in dead)
            self.sim.take(NewConnections(opened=tuple(opened), answered=well))
            self.sim.run_until(self.sim.now + 0.1)

    def _next(self) -> IPAddress:
        return self.destinations[next(self.turn) % len(self.destinations)]


SERVERS = [ip_address(f"203.0.113.{n}") for n in range(1, 9)]


def playing(**health: object) -> tuple[Playing, Load]:
    uplinks = {f"u{n}": {"interface": f"wan{n}", "families": ["ipv4"]} for n in (1, 2)}
    sim = Playing({"uplinks": uplinks, "health": health}, 2)
    sim.run_until(5.0)
    return sim, Load(sim, "u1", SERVERS)


def silenced(**health: object) -> tuple[Playing, float]:
    sim, load = playing(**health)
    load.run(8.05)
    sim.internet.silent.add(("u1", Family.V4))
    began = sim.now
    while sim.state_of("u1") == "up" and sim.now < began + 5:
        load.run(sim.now + 0.05, answered=False)
    return sim, sim.now - began


def test_a_silent_death_under_load_is_noticed_well_within_a_second() -> None:
    sim, took = silenced()
    assert sim.state_of("u1") == "down"
    assert took < 0.8


def test_without_passive_signs_it_takes_the_ordinary_rounds() -> None:
    sim, took = silenced(passive=False)
    assert sim.state_of("u1") == "down"
    assert sim.alarms == []
    assert took > 1.0


def test_an_alarm_on_an_uplink_that_answers_probes_changes_nothing_but_the_probes() -> None:
    sim, load = playing()
    load.run(8.0)
    load.run(12.0, answered=False)
    assert len(sim.alarms) == 1
    assert sim.state_of("u1") == "up"
    assert sim.state.health.rounds[KEY].bad == 0


def test_a_pause_that_ends_before_the_rounds_do_is_no_loss() -> None:
    sim, load = playing()
    load.run(8.0)
    sim.internet.silent.add(KEY)
    load.run(sim.now + 0.35, answered=False)
    assert sim.alarms
    sim.internet.silent.clear()
    load.run(12.0)
    assert sim.state_of("u1") == "up"


def test_a_dead_server_under_load_raises_no_alarm() -> None:
    sim, load = playing()
    load.run(15.0, dead=frozenset(SERVERS[:1]))
    load.destinations = SERVERS[:1]
    load.run(25.0, answered=False)
    assert sim.alarms == []


def test_connections_to_the_inside_tell_nothing() -> None:
    sim, load = playing()
    sim.kernel.set_link(Link(index=50, name="lan0", up=True, carrier=True, kind="veth"))
    sim.kernel.add_address(Address("lan0", ip_interface("192.168.15.1/24")))
    load.run(8.0)
    own = [a.ip.ip for a in sim.kernel.observe().addresses if a.ip.version == 4]
    load.destinations = [*own, *map(ip_address, ("192.168.15.20", "192.168.15.30", "192.168.15.40"))]
    load.run(12.0, answered=False)
    assert sim.alarms == []


def test_a_mark_of_nobody_is_ignored() -> None:
    sim, load = playing()
    load.mark = Mark(0x3000)
    load.run(8.0)
    assert not any(w.attempts for w in sim.state.health.watches.values())


def test_status_tells_the_share_without_an_answer() -> None:
    sim, load = playing()

    def shown() -> list[float | None]:
        return [u.unanswered for u in document(sim.state, "0", 0.0, 0.0, {}, sim.now).uplinks]

    assert shown() == [None, None]
    load.run(8.0, dead=frozenset(SERVERS[:2]))
    share, other = shown()
    assert share == pytest.approx(0.25, abs=0.05)
    assert other is None
    sim.run_until(sim.now + passive.MEMORY + 0.1)
    assert shown() == [None, None]


def test_a_reload_without_the_uplink_forgets_it_in_status_too() -> None:
    sim, load = playing()
    load.run(8.0)
    sim.command(("reload", "without", "u1"))
    assert [u.name for u in document(sim.state, "0", 0.0, 0.0, {}, sim.now).uplinks] == ["u2"]
