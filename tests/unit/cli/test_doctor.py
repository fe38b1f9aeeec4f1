"""What `polywan doctor` prints, asks and refuses."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from polywan.api.doctor import Diagnosis, Finding, Fix, NotChecked, Step
from polywan.cli import doctor

STEP = Step(command=("true",))
FAULT = Finding(
    check="some",
    severity="fault",
    what="the line is cut",
    evidence=("a saw", "a log\x1b[2J"),
    consequence="nothing works",
    fix=Fix(how="mend the line", steps=(STEP,)),
)


def diagnosis(*findings: Finding, healthy: bool = False) -> Diagnosis:
    return Diagnosis(
        schema=1,
        version="",
        healthy=healthy,
        findings=findings,
        not_checked=(NotChecked(check="other", reason="needs root"),),
        checked=("some", "fine"),
        seconds=0.25,
    )


def run(monkeypatch: pytest.MonkeyPatch, found: list[Diagnosis], *words: str, answer: str = "") -> tuple[int, str]:
    monkeypatch.setattr(doctor, "_look", lambda *_: found.pop(0))
    done = CliRunner().invoke(doctor.command, words, input=answer)
    return done.exit_code, done.output


def test_a_finding_is_what_consequence_evidence_and_fix() -> None:
    lines = click.unstyle(doctor.text(diagnosis(FAULT))).splitlines()

    assert [line.strip() for line in lines[:6]] == [
        "fault: the line is cut",
        "nothing works",
        "seen: a saw",
        "seen: a log\\x1b[2J",
        "fix: mend the line",
        "true",
    ]


def test_what_was_not_checked_is_said_with_the_reason() -> None:
    assert "not checked: other: needs root" in doctor.text(diagnosis(healthy=True))


def test_a_machine_with_faults_exits_with_6_and_a_healthy_one_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [diagnosis(FAULT)])[0] == 6
    assert run(monkeypatch, [diagnosis(healthy=True)])[0] == 0


def test_a_fix_is_shown_asked_for_carried_out_and_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [diagnosis(FAULT), diagnosis(healthy=True)], "--fix", answer="y\n")

    assert "would do: true" in output
    assert "done: true" in output
    assert code == 0


def test_a_fix_that_is_declined_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [diagnosis(FAULT)], "--fix", answer="n\n")

    assert "done:" not in output
    assert code == 6


@pytest.mark.parametrize("words", [["--yes"], ["--fix", "--json"]])
def test_options_that_make_no_sense_together_are_refused(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    assert run(monkeypatch, [], *words)[0] == 2


def test_a_check_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    done = CliRunner().invoke(doctor.command, ["strict-rp-filtre"])

    assert done.exit_code == 2
    assert "strict-rp-filter" in done.output
