"""`polywan metrics`: on the output, in a file, again and again."""

from __future__ import annotations

import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from polywan.api.requests import Nothing
from polywan.api.status import Status
from polywan.cli.metrics import command
from polywan.client import Client
from polywan.core.errors import ControlError, NotPermitted, PolywanError
from polywan.core.metrics.exposition import Format, text
from support.documents import status, uplink

WELL = status(uplink("fibre"))
AWAY = ControlError("no daemon answers")


class StoppedError(Exception):
    """Ends a verb that would go on."""


def answers(monkeypatch: pytest.MonkeyPatch, *found: Status | ControlError) -> None:
    """Let daemons answer one after the other; the last one for good."""
    rest = [*found]

    def ask(_: Client, __: object, ___: Nothing) -> Status:
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(answer, ControlError):
            raise answer
        return answer

    monkeypatch.setattr(Client, "ask", ask)


def run(*words: str) -> tuple[int, str, str, BaseException | None]:
    done = CliRunner().invoke(command, list(words))
    return done.exit_code, done.stdout, done.stderr, done.exception


def test_the_output_is_openmetrics_unless_another_format_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, WELL)
    assert run()[1] == text(WELL)
    assert run("--format", "prometheus")[1] == text(WELL, Format.PROMETHEUS)


def test_a_file_is_what_node_exporter_reads_and_may_be_read_by_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers(monkeypatch, WELL)
    out = tmp_path / "polywan.prom"
    out.write_text("old")
    out.chmod(0o600)
    assert run("--out", str(out))[:2] == (0, "")
    assert out.read_text() == text(WELL, Format.PROMETHEUS)
    assert out.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["polywan.prom"]


def test_a_file_may_have_the_other_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, WELL)
    run("--out", str(tmp_path / "metrics.txt"), "--format", "openmetrics")
    assert (tmp_path / "metrics.txt").read_text() == text(WELL)


def test_a_link_is_replaced_and_not_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, WELL)
    other = tmp_path / "other"
    other.write_text("theirs")
    out = tmp_path / "polywan.prom"
    out.symlink_to(other)
    assert run("--out", str(out))[0] == 0
    assert other.read_text() == "theirs"
    assert not out.is_symlink()


def test_without_a_daemon_the_file_says_so_and_the_verb_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, AWAY)
    out = tmp_path / "polywan.prom"
    assert run("--out", str(out))[3] is AWAY
    assert out.read_text() == text(None, Format.PROMETHEUS)


def test_without_a_daemon_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, AWAY)
    assert run()[1:] == ("", "", AWAY)


def test_a_refusal_leaves_the_file_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refusal = ControlError("permission denied", 403)
    answers(monkeypatch, refusal)
    out = tmp_path / "polywan.prom"
    out.write_text("old")
    assert run("--out", str(out), "--every", "1s")[3] is refusal
    assert out.read_text() == "old"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses that were made; the fourth ends it."""
    found: list[float] = []
    now = [100.0]

    def sleep(seconds: float) -> None:
        found.append(seconds)
        now[0] += seconds
        if len(found) > 3:
            raise StoppedError

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return found


def test_a_file_is_written_again_and_again_also_while_no_daemon_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pauses: list[float]
) -> None:
    answers(monkeypatch, WELL, AWAY, AWAY, WELL)
    out = tmp_path / "polywan.prom"
    _, _, said, error = run("--out", str(out), "--every", "15s")
    assert isinstance(error, StoppedError)
    assert said == "no daemon answers; waiting for it\n"
    assert pauses == [15.0] * 4
    assert out.read_text() == text(WELL, Format.PROMETHEUS)


@pytest.mark.parametrize(
    ("words", "problem"),
    [(("--every", "15s"), "--every needs --out"), (("--every", "15x", "--out", "x"), 'got "15x"')],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], problem: str) -> None:
    code, _, said, _ = run(*words)
    assert code == click.UsageError.exit_code
    assert problem in said


def test_a_file_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, WELL)
    error = run("--out", str(tmp_path / "no" / "polywan.prom"))[3]
    assert isinstance(error, PolywanError)
    assert str(error).endswith("polywan.prom: no such file or directory")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("polywan.files.exchange", refuse)
    assert isinstance(run("--out", str(tmp_path / "polywan.prom"))[3], NotPermitted)
