"""Programs are asked, but not for long, and their last words say why they failed."""

from __future__ import annotations

import sys

import pytest

from polywan.core.errors import MissingFeature, PolywanError
from polywan.kernel import programs
from polywan.kernel.programs import listing, output


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_what_a_program_prints_is_read_to_its_end() -> None:
    assert output(python("print('x' * 200000)"), "python") == "x" * 200000 + "\n"


def test_a_program_that_is_not_there_is_named_with_its_package() -> None:
    with pytest.raises(MissingFeature, match=r"no-such-program is not installed \(package some\)"):
        output(("no-such-program",), "some")


def test_a_program_that_fails_has_printed_nothing_that_counts() -> None:
    with pytest.raises(PolywanError, match="exit status 3"):
        output(python("print(1); raise SystemExit(3)"), "python")


def test_the_last_line_of_its_complaints_says_why() -> None:
    with pytest.raises(PolywanError, match=r"not permitted$"):
        output(python("import sys; sys.exit('first\\nnot permitted')"), "python")


def test_complaints_of_a_program_that_succeeds_do_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    output(python("import sys; print('odd', file=sys.stderr)"), "python")

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["import time; time.sleep(60)", "import os, time; os.close(1); time.sleep(60)"])
def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(programs, "PATIENCE", 0.2)
    with pytest.raises(PolywanError, match=r"did not end within 0\.2 s"):
        output(python(text), "python")


def test_a_program_that_prints_without_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "MOST_BYTES", 1 << 20)
    with pytest.raises(PolywanError, match="prints more than 1 MiB"):
        output(python("while True: print('x' * 1000)"), "python")


def test_what_is_no_json_is_said() -> None:
    with pytest.raises(PolywanError, match="is no JSON"):
        listing(python("print('no')"), "python")
