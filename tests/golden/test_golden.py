"""One folder per sentence: config.toml and observed.json go in, plan.txt and ruleset.nft come out.

Where there is a packets.txt, each line of it is a question to `polywan why`, and the answers are in trace.txt.

``pytest tests/golden --update-golden`` writes the outputs anew; read the difference before you commit it.
"""

from pathlib import Path

import pytest

from polywan.config import load
from polywan.core.engine import step as engine
from polywan.core.plan.plan import Plan, describe
from polywan.core.state.effects import Apply
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.state.state import State
from polywan.core.trace.explain import describe as describe_trace
from polywan.core.trace.question import parse as parse_question
from polywan.core.trace.walk import trace
from polywan.daemon.api.why import recorded, trace_input_of
from polywan.daemon.offline import parse
from support.engine_world import Engine

CASES = sorted(p for p in (Path(__file__).parent / "cases").iterdir() if p.is_dir())


def outputs(case: Path) -> dict[str, str]:
    """Return the output files of a case, by name."""
    recording = parse((case / "observed.json").read_bytes(), "observed.json")
    state, _ = engine.step(State(), ConfigLoaded(load(case / "config.toml")), 0.0)
    state, effects = engine.step(state, ReadDone(recording.observed, recording.actual()), 0.0)
    plan = next((e.plan for e in effects if isinstance(e, Apply)), Plan())
    lines = [describe(op).split("\n", 1)[0] for op in plan.ops]
    assert state.decision.desired is not None
    found = {"plan.txt": "".join(f"{line}\n" for line in lines), "ruleset.nft": state.decision.desired.nft.render()}
    if (packets := case / "packets.txt").exists():
        found["trace.txt"] = "\n".join(answer(state, line) for line in packets.read_text().splitlines())
    return found


def answer(state: State, line: str) -> str:
    """Return what a question is answered, as people read it."""
    words = dict(word.split("=", 1) for word in line.split())
    asked = parse_question(words)
    if asked.source is not None and asked.in_interface is not None:
        # Devices that are no uplinks need not be in the recording.
        text = describe_trace(trace(trace_input_of(state), asked.packet(asked.source, asked.in_interface, now=0)))
    else:
        text = [*recorded(state, words, now=0).text]
    return "".join(f"{part}\n" for part in text)


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_once_it_is_in_force_nothing_is_done_again(case: Path) -> None:
    recording = parse((case / "observed.json").read_bytes(), "observed.json")
    config = load(case / "config.toml")
    first = Engine(config, recording.observed, recording.actual())
    assert first.plans()
    again = Engine(config, recording.observed, first.state.known.actual)
    assert again.plans() == []


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_the_outputs_are_as_recorded(case: Path, request: pytest.FixtureRequest) -> None:
    for name, text in outputs(case).items():
        if request.config.getoption("--update-golden"):
            (case / name).write_text(text)
        assert text == (case / name).read_text(), f"{case.name}/{name} differs; see --update-golden"
