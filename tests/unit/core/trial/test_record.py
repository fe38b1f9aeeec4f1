"""The record of a trial is read as it was written, or refused in words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from polywan.core.trial.record import restored, stored
from unit.core.trial.test_deciding import RECORD


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, supervisor=None, began=0.0, edited=True)])
def test_what_is_written_is_read_again(record: object) -> None:
    assert restored(json.loads(json.dumps(stored(record)))) == record  # type: ignore[arg-type]  # of the list above


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "is of version 2, and this polywan knows 1"),
        ({"deadline": "soon"}, "'soon' is missing or of the wrong kind"),
        ({"daemon": None}, "missing or of the wrong kind"),
        ({"up": "fibre"}, "missing or of the wrong kind"),
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        restored({**stored(RECORD), **change})


@pytest.mark.parametrize("value", [None, [], "x", 5, {}])
def test_other_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|version"):
        restored(value)
