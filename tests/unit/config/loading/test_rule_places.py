"""Where a rule stands: counted from 1, with file and line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from polywan.config import load_with_warnings
from polywan.core.world.lookups import NOTHING
from polywan.daemon.api import why
from polywan.daemon.reloading import taken_in
from support.engine_world import Engine, config, world


def test_a_rule_is_told_with_its_file_and_line_where_that_is_known() -> None:
    rules = [{"port": 25, "protocol": "tcp", "uplink": "u1"}, {"to": "203.0.113.0/24", "uplink": "u1"}]
    state = Engine(config(1, rules=rules), world(1)).state
    bare = why.recorded(state, {"to": "203.0.113.10"}, now=0)
    assert [rule.at for rule in bare.rules] == [None, None]
    assert bare.text[1:3] == ("  rule 1: no, port = 25 is needed (here: not known)", "  rule 2: matches")
    shown = why.recorded(
        replace(state, known=replace(state.known, rules_at=("a.toml:3", "conf.d/b.toml:7"))),
        {"to": "203.0.113.10"},
        now=0,
    )
    assert [rule.at for rule in shown.rules] == ["a.toml:3", "conf.d/b.toml:7"]
    assert shown.text[1:3] == (
        "  rule 1 (a.toml:3): no, port = 25 is needed (here: not known)",
        "  rule 2 (conf.d/b.toml:7): matches",
    )


def test_files_and_lines_of_rules_come_with_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    main, more = tmp_path / "polywan.toml", tmp_path / "conf.d" / "b.toml"
    main.write_text('[uplinks.u1]\ninterface = "wan1"\n[[rules]]\nuplink = "u1"\nport = 25\nprotocol = "tcp"\n')
    more.write_text('\n[[rules]]\naction = "bypass"\n')
    loaded = load_with_warnings(main)
    assert loaded.rules_at == (f"{main}:3", f"{more}:2")
    daemon = Engine(loaded.config, world(1))
    daemon.feed(taken_in(loaded, NOTHING))
    assert daemon.state.known.rules_at == loaded.rules_at
