"""Whatever happens to the memory file: the daemon starts, marks are unique, and no setting but our own is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polywan.api.codec import encode
from polywan.config.model import numbering
from polywan.core.errors import NewerError
from polywan.core.marks import allocate
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import resolve
from polywan.core.routing.sysctls import restorable
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.state.memory import Memory
from polywan.core.state.remembered import MEMORY_MIGRATIONS, Remembered, remembered
from polywan.core.state.state import Known, State
from polywan.core.status.document import document
from polywan.core.versions import upgraded
from polywan.daemon import store
from support.engine_world import Engine, config, world
from support.examples import examples
from support.memories import MEMORY

WHOLE: dict[str, Any] = json.loads(json.dumps(store._encode(MEMORY)))

scalars = (
    st.none() | st.booleans() | st.integers(-5, 300) | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["fibre", "lte", "u1", "u2", "policy:x", "disable", "100.64.1.1", "kernel/hostname", "\x1b[2J"])
)  # fmt: skip
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good document with a few of its values, at any depth, exchanged, added or taken away."""
    document = json.loads(json.dumps(WHOLE))
    for _ in range(draw(st.integers(1, 4))):
        place, key = _somewhere(draw, document)
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(st.sampled_from(["u1", "u2", "u3", "net/ipv4/ip_forward", "kernel/core_pattern"]))] = draw(
                scalars
            )
        elif draw(st.booleans()):
            place[key] = draw(anything)
        else:
            del place[key]
    return document


def _somewhere(draw: st.DrawFn, document: Any) -> tuple[Any, Any]:
    place, key = document, draw(st.sampled_from(sorted(document))) if document else None
    if key is None:
        document["ids"] = {}
        return document, "ids"
    while isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
        place = place[key]
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    return place, key


def understood(document: Any) -> Remembered | None:
    """What is believed of a document; None when it is refused, as it should be."""
    try:
        return remembered(upgraded(document, MEMORY_MIGRATIONS, "memory.json", "marks may change"))
    except NewerError:
        assert document["version"] > len(MEMORY_MIGRATIONS)
    except ValueError:
        version = document.get("version") if isinstance(document, dict) else None
        assert (
            not isinstance(document, dict) or not isinstance(version, int) or isinstance(version, bool) or version < 0
        )
    return None


def harmless(memory: Memory) -> None:
    numbers = list(memory.ids.values())
    assert len(numbers) == len(set(numbers))
    assert all(1 <= number <= numbering.MOST_NUMBERS for number in numbers)
    assert all(restorable(path, value) for path, value in memory.originals.items())
    configuration = config(3)
    marks = allocate(["u1", "u2", "u3"], memory.ids, resolve(configuration, {}).layout)
    assert len(set(marks.values())) == len(marks)


@given(mutated() | anything)
def test_a_mutated_document_never_raises_and_gives_unique_marks(document: Any) -> None:
    if (found := understood(document)) is not None:
        harmless(found.memory)
        assert set(found.senseless) <= set(WHOLE)


@given(mutated())
@settings(max_examples=examples(50))
def test_a_daemon_with_a_mutated_memory_decides_and_shows_itself(document: Any) -> None:
    memory = found.memory if (found := understood(document)) is not None else Memory()
    daemon = Engine(config(3), world(3), ActualState(), State(known=Known(memory=memory)))
    daemon.feed(ReadDone(world(3), daemon.state.known.actual or ActualState()))
    daemon.feed(ConfigLoaded(config(2)))
    marks = [number.mark for number in daemon.state.known.numbers.values()]
    assert len(marks) == len(set(marks))
    json.dumps(document_of(daemon))


def document_of(daemon: Engine) -> Any:
    return encode(document(daemon.state, "0", 0.0, 1_800_000_000.0, {}, daemon.now))


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | mutated().map(lambda d: json.dumps(d).encode())
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_of_any_bytes_is_one_sentence_at_most(tmp_path: Path, content: bytes) -> None:
    (tmp_path / store.FILE).write_bytes(content)
    try:
        memory, warning = store.load(tmp_path)
    except NewerError:
        assert (tmp_path / store.FILE).read_bytes() == content
        return
    harmless(memory)
    assert warning.isprintable()
    assert not warning or "ignored" in warning
    store.lost(tmp_path)


@given(st.integers(0, 4000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_cut_off_never_raises(tmp_path: Path, length: int) -> None:
    store.save(tmp_path, MEMORY)
    content = (tmp_path / store.FILE).read_bytes()
    (tmp_path / store.FILE).write_bytes(content[:length])
    memory, warning = store.load(tmp_path)
    assert (memory == MEMORY) is not bool(warning)
