"""Whatever dies in the life of a trial: the file's place holds what was confirmed, and that comes into force."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.core.errors import PolywanError
from polywan.core.trial.texts import digest_of
from support.examples import examples
from support.trials import Crash, TrialWorld

TEXTS = [f'[uplinks.u1]\ninterface = "wan1"\nweight = {weight}\n' for weight in (1, 2, 3)]
ACTS = st.one_of(
    st.tuples(st.just("try"), st.sampled_from(TEXTS)),
    st.tuples(st.just("edit"), st.sampled_from(TEXTS)),
    st.tuples(st.sampled_from(["try in place", "confirm", "roll back", "supervise", "supervise", "daemon dies"])),
    st.tuples(st.sampled_from(["supervisor dies", "reboot", "time passes"])),
)
LIVES = st.lists(st.tuples(ACTS, st.one_of(st.none(), st.integers(0, 30))), min_size=1, max_size=12)


class Life:
    """A world, and what its file may say after each act."""

    def __init__(self, world: TrialWorld) -> None:
        self.world = world
        self.confirmed: set[str] = set()

    def act(self, act: tuple[str, ...], dies_at: int | None) -> None:
        world = self.world
        before, record = world.place.file.read_text(), world.place.pending()
        allowed = {before}
        if act[0] == "edit":
            allowed.add(act[1])
        if act[0] == "confirm" and record is not None:
            allowed.add(record.text)
            self.confirmed.add(record.id)
        if act[0] == "try in place":
            # The edited text goes, and what is in force comes back; or not, if it does not begin.
            allowed.add(world.daemon.confirmed["polywan.toml"])
        world.fuse.steps = dies_at
        try:
            with suppress(PolywanError):
                self._carry_out(act)
        except Crash:
            pass
        finally:
            world.fuse.steps = None
        now, record = world.place.file.read_text(), world.place.pending()
        assert now in allowed, (act, dies_at)
        if act[0] == "edit" and record is not None:
            # Whoever writes the new text there by hand confirms it.
            self.confirmed.add(record.id)
        if record is not None and record.began and record.id not in self.confirmed:
            assert digest_of(now) == record.old, (act, dies_at)

    def _carry_out(self, act: tuple[str, ...]) -> None:
        world = self.world
        match act:
            case ("try", text):
                world.attempt(text)
            case ("edit", text):
                world.place.file.write_text(text)
            case ("try in place",):
                world.attempt(None)
            case ("confirm",):
                world.confirm()
            case ("roll back",):
                world.roll_back()
            case ("supervise",):
                world.supervise()
            case ("daemon dies",):
                world.daemon.kill()
            case ("supervisor dies",):
                world.watching = False
            case ("reboot",):
                world.reboot()
            case ("time passes",):
                world.now += 100.0
            case _:
                raise AssertionError(act)

    def end(self) -> None:
        """Let everything that still runs do its work; without a supervisor that is the next one that tries."""
        world = self.world
        world.now += 5000.0
        for _ in range(3):
            with suppress(PolywanError):
                world.supervise()
        world.daemon.start()
        for work in (world.supervise, world.tidy):
            with suppress(PolywanError):
                work()


def test_a_life_without_accidents_is_one(tmp_path: Path) -> None:
    # The laws below overlook refusals: they would hold of a world in which nothing ever begins.
    world = TrialWorld(tmp_path, TEXTS[0])
    with world.entered():
        world.attempt(TEXTS[1])
        assert (world.daemon.in_force["polywan.toml"], world.place.file.read_text()) == (TEXTS[1], TEXTS[0])
        world.confirm()
        assert (world.daemon.in_force["polywan.toml"], world.place.file.read_text()) == (TEXTS[1], TEXTS[1])
        world.place.file.write_text(TEXTS[2])
        world.attempt(None)
        world.daemon.kill()
        world.supervise()
        assert (world.daemon.in_force["polywan.toml"], world.place.file.read_text()) == (TEXTS[1], TEXTS[1])
        assert world.place.pending() is None


@given(LIVES)
@settings(max_examples=examples(150), deadline=None)
def test_the_place_holds_what_was_confirmed_and_that_comes_into_force(
    life: list[tuple[tuple[str, ...], int | None]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = TrialWorld(Path(directory), TEXTS[0])
        lived = Life(world)
        with world.entered():
            for act, dies_at in life:
                lived.act(act, dies_at)
            lived.end()
            assert world.place.pending() is None
            assert world.daemon.pending is None
            # What was edited and not reloaded is not in force.
            edited = any(act[0] == "edit" for act, _ in life)
            assert world.daemon.in_force in (world.place.texts(), *([world.daemon.confirmed] if edited else ()))


@given(
    st.sampled_from(["try", "try in place"]),
    st.integers(0, 40),
    st.sampled_from(["roll back", "reboot", "supervisor dies"]),
    st.integers(0, 40),
)
@settings(max_examples=examples(150), deadline=None)
def test_no_text_of_the_user_is_lost(how: str, first: int, then: str, second: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = TrialWorld(Path(directory), TEXTS[0])
        with world.entered():
            lived = Life(world)
            if how == "try in place":
                lived.act(("edit", TEXTS[1]), None)
            lived.act(("try", TEXTS[1]) if how == "try" else (how,), first)
            lived.act((then,), second)
            lived.end()
            texts = [path.read_text() for path in Path(directory).iterdir()]
            assert world.place.file.read_text() == TEXTS[0] or how == "try in place"
            assert how == "try" or TEXTS[1] in texts
