"""`plan` beside a daemon: the daemon's own decisions are no drift, anything else is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polywan.config import Config, ConfigError, file_texts, load, load_texts
from polywan.core.plan.plan import ActualState, Plan
from polywan.core.ruleset.model import Chain, NftTable
from polywan.core.state.drift import Repairs
from polywan.core.state.events import ReadDone
from polywan.core.status import rehearsal
from polywan.core.status.rehearsal import of_held, rehearse
from polywan.core.world.lookups import NOTHING
from support.engine_world import Engine, config, world


def coming_back() -> Engine:
    """Two uplinks, of which one has just come back and is in slow start."""
    daemon = Engine(config(2), world(2))
    daemon.carrier(1, carrier=False)
    daemon.now = 100.0
    daemon.carrier(1, carrier=True)
    for key in [k for k in daemon.state.health.rounds if k[0] == "u1"]:
        state = daemon.state.health.rounds[key]
        risen = replace(state, health=type(state.health).UP, returned=99.0, proven=True)
        daemon.state = replace(
            daemon.state, health=replace(daemon.state.health, rounds={**daemon.state.health.rounds, key: risen})
        )
    daemon.feed(ReadDone(world(2), actual(daemon)))
    assert daemon.state.decision.ramps
    return daemon


def actual(daemon: Engine) -> ActualState:
    assert daemon.state.known.actual is not None
    return daemon.state.known.actual


def planned(daemon: Engine, config: Config, seen: ActualState) -> Plan:
    return rehearse(daemon.state, config, NOTHING, ReadDone(world(2), seen), daemon.now)[0]


def test_slow_start_is_no_drift() -> None:
    daemon = coming_back()
    before = daemon.state
    assert planned(daemon, config(2), actual(daemon)) == Plan()
    assert daemon.state is before


def test_what_somebody_removed_during_slow_start_is_drift() -> None:
    daemon = coming_back()
    seen = replace(actual(daemon), rules=frozenset(list(actual(daemon).rules)[1:]))
    assert len(planned(daemon, config(2), seen).ops) == 1


def test_slots_that_somebody_changed_during_slow_start_are_drift() -> None:
    daemon = coming_back()
    nft = actual(daemon).nft
    assert nft is not None
    seen = replace(actual(daemon), nft=replace(nft, maps={**nft.maps, "slots_4_default": {0: "goto to_u1"}}))
    assert len(planned(daemon, config(2), seen).ops) == 1


def test_a_fight_with_another_program_hides_no_drift() -> None:
    daemon = coming_back()
    daemon.state = replace(
        daemon.state, done=replace(daemon.state.done, repairs=Repairs(times=tuple([daemon.now] * 9)))
    )
    seen = replace(actual(daemon), rules=frozenset())
    assert planned(daemon, config(2), seen)


def test_another_file_is_planned_as_reload_would_carry_it_out() -> None:
    daemon = coming_back()
    assert planned(daemon, config(2, [1, 5]), actual(daemon))


def test_a_configuration_survives_the_way_to_the_daemon(tmp_path: Path) -> None:
    main = tmp_path / "polywan.toml"
    main.write_text('[uplinks.a]\ninterface = "wan1"\nmetered = true\n', encoding="utf-8")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.toml").write_text('[uplinks.b]\ninterface = "wan2"\n', encoding="utf-8")
    sent = json.loads(json.dumps(file_texts(main)))
    assert list(sent) == [str(main), str(tmp_path / "conf.d" / "b.toml")]
    arrived, read = load_texts(sent).config, load(main)
    assert arrived == read
    assert [arrived.health_of(u) for u in arrived.uplinks] == [read.health_of(u) for u in read.uplinks]


def test_a_file_that_cannot_be_read_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        file_texts(tmp_path / "polywan.toml")


def test_tables_that_the_daemon_holds_are_shown_when_they_differ() -> None:
    one, other = NftTable(chains={}), NftTable(chains={"forward": Chain(())})
    assert of_held({"a": one}, {"a": one}) == ()
    shown = of_held({"a": one, "b": one}, {"a": other, "c": one})
    assert [op.text for op in shown] == ["+ table a", "- table b", "+ table c"]
    assert [op.text for op in rehearsal.planned(Plan(), (), shown).ops] == ["+ table a", "- table b", "+ table c"]
