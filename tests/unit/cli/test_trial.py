"""What `polywan try` says while it waits."""

from __future__ import annotations

import pytest

from polywan.cli.trial import _counting


def test_a_rollback_that_does_not_come_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    tick = _counting(10.0)
    for remaining in (3.0, -1.0, -14.0):
        tick(remaining)
    assert capsys.readouterr().err == ""
    for remaining in (-16.0, -17.0, -60.0):
        tick(remaining)
    assert capsys.readouterr().err == (
        "the old configuration is not in force yet, and is tried again: the log of polywan says why\n"
    )
