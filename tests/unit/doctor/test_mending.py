"""Steps of fixes are carried out exactly, without a shell, and files are never half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from polywan.api.doctor import Step
from polywan.core.errors import PolywanError
from polywan.doctor.mending import carry_out, shown


def test_a_text_is_added_to_a_file_once(tmp_path: Path) -> None:
    file = tmp_path / "sysctl.d/90-uplinks.conf"
    step = Step(path=str(file), text="a = 1\n", append=True)

    carry_out(step)
    carry_out(step)

    assert file.read_text("utf-8") == "a = 1\n"


def test_what_a_file_has_stays_when_a_text_is_added(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no newline at the end", "utf-8")

    carry_out(Step(path=str(file), text="a = 1\n", append=True))

    assert file.read_text("utf-8") == "no newline at the end\na = 1\n"


def test_a_file_takes_the_place_of_another_in_one_piece(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old", "utf-8")

    carry_out(Step(path=str(file), text="new\n"))

    assert [(path.name, path.read_text("utf-8")) for path in tmp_path.iterdir()] == [("file", "new\n")]


def test_a_command_is_given_its_words_as_they_are(tmp_path: Path) -> None:
    carry_out(Step(command=("touch", str(tmp_path / "a b; $(false)"))))

    assert [path.name for path in tmp_path.iterdir()] == ["a b; $(false)"]


def test_a_command_that_fails_says_how(tmp_path: Path) -> None:
    with pytest.raises(PolywanError, match="No such file"):
        carry_out(Step(command=("cat", str(tmp_path / "nothing"))))


def test_a_program_that_is_not_there_is_no_traceback() -> None:
    with pytest.raises(PolywanError, match="No such file"):
        carry_out(Step(command=("/nonexistent/program",)))


def test_a_step_is_shown_as_an_administrator_would_type_it() -> None:
    assert shown(Step(command=("ip", "link", "set", "a b", "up"))) == "ip link set 'a b' up"
    assert shown(Step(path="/etc/x", text="a\nb\n", append=True)) == "add to /etc/x: 2 lines"
    assert shown(Step(path="/etc/x", text="a = 1\n")) == "write /etc/x: 'a = 1'"
