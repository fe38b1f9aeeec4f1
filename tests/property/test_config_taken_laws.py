"""What `check` accepts, the engine takes: over any world, at the start and as a reload."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.config import Config, ConfigError, load_text
from polywan.config.model.numbering import MARKED, capacity, marked
from polywan.core.net import FAMILIES
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import numbered, resolve
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.world.observed import Observed
from support.engine_world import Engine, config, world
from support.examples import examples

EXAMPLES = [p.read_text(encoding="utf-8") for p in sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))]

ALGORITHMS = st.sampled_from(["weighted", "source", "multipath", "per-packet"])

WORLDS = st.builds(world, st.integers(0, 3), st.sampled_from([FAMILIES, FAMILIES[:1], FAMILIES[1:], ()]))


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Files around the limit of a mask of 3 to 5 bits: uplinks, policies, and rules that make policies of their own."""
    bits = draw(st.integers(3, 5))
    shift = draw(st.integers(0, 32 - bits))
    uplinks = [f"u{n}" for n in range(draw(st.integers(1, capacity((1 << bits) - 1) + 1)))]
    text = "".join(f'[uplinks.{u}]\ninterface = "wan{n}"\nnat = "none"\n' for n, u in enumerate(uplinks))
    names = draw(st.lists(st.sampled_from(["default", "a", "b", "c"]), unique=True))
    for name in names:
        members = draw(st.lists(st.sampled_from(uplinks), min_size=1, unique=True))
        text += f'[policies.{name}]\nalgorithm = "{draw(ALGORITHMS)}"\ntiers = {[members]}\n'.replace("'", '"')
    for _ in range(draw(st.integers(0, 4))):
        target = draw(st.sampled_from([*(f'policy = "{n}"' for n in names), f'uplink = "{uplinks[0]}"', ""]))
        only = draw(st.lists(st.sampled_from(uplinks), unique=True))
        text += f"[[rules]]\n{target}\n" + (f"only = {only}\n".replace("'", '"') if only else "")
    return text + f"[global]\nmark_mask = {((1 << bits) - 1) << shift:#x}\n"


def accepted(text: str) -> Config | None:
    try:
        return load_text(text)
    except ConfigError:
        return None


@settings(deadline=None, max_examples=examples(150))
@given(texts(), WORLDS)
def test_whatever_check_accepts_is_taken_at_the_start_and_as_a_reload(text: str, seen: Observed) -> None:
    given_config = accepted(text)
    if given_config is None:
        return
    new = Engine(given_config, seen)
    assert new.state.decision.desired is not None
    running = Engine(config(2), world(2))
    running.feed(ConfigLoaded(given_config))
    running.feed(ReadDone(seen, ActualState()))
    assert set(running.state.known.numbers) == set(given_config.uplinks)


@settings(deadline=None, max_examples=examples(150))
@given(texts())
def test_numbers_are_counted_in_one_way_before_and_after_a_file_is_accepted(text: str) -> None:
    given_config = accepted(text)
    if given_config is None:
        return
    made = {name for name, policy in resolve(given_config, {}).policies.items() if policy.algorithm in MARKED}
    assert {name for name, _ in marked(given_config.policies, given_config.rules)} == made
    assert len(numbered(given_config)) <= capacity(given_config.global_.mark_mask)


def test_the_examples_are_taken_in_any_world() -> None:
    for text in EXAMPLES:
        for count in (0, 1, 3):
            assert Engine(load_text(text), world(count)).state.decision.desired is not None
