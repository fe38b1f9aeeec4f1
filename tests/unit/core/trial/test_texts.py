"""Texts of a configuration: sent as they are, and only under names that the loader reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.trial.texts import is_part, received, sent


@given(st.dictionaries(st.text(max_size=5), st.text(st.characters(exclude_categories=["Cs"]), max_size=50)))
def test_a_text_comes_back_as_it_was(files: dict[str, str]) -> None:
    assert received(sent(files)) == files


@pytest.mark.parametrize("text", ["!", "abc", "/w=="])
def test_what_was_not_sent_so_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Only|padding|decode|base64"):
        received({"polywan.toml": text})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("polywan.toml", True),
        ("conf.d/10-lte.toml", True),
        ("conf.d/.hidden.toml", False),
        ("conf.d/../x.toml", False),
        ("../cron.d/x.toml", False),
        ("/etc/cron.d/x", False),
        ("conf.d/x", False),
        ("other.toml", False),
    ],
)
def test_only_names_that_the_loader_reads_are_part_of_a_configuration(name: str, known: bool) -> None:
    assert is_part(name, "polywan.toml") is known
