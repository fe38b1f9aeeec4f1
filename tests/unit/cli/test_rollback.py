"""The difference that `polywan rollback` and `history --diff` show."""

from __future__ import annotations

import pytest

from polywan.cli.rollback import difference


@pytest.mark.parametrize("then", ["a = 1\r\n", "a = 1"], ids=["ends of lines", "end of the file"])
def test_ends_of_lines_are_a_difference(then: str) -> None:
    found = difference({"polywan.toml": "a = 1\n"}, {"polywan.toml": then})
    assert [line for line in found if line[0] in "+-"][2:]


def test_a_file_that_is_new_is_shown_whole() -> None:
    assert difference({}, {"conf.d/a.toml": "a = 1\n"})[3:] == ["+a = 1", "+"]
