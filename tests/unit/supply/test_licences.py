"""The licences of what polywan needs at run time."""

from __future__ import annotations

import re
from email.message import Message

import pytest
from supply.licences import COMPATIBLE, LOCK, PLACE, installed, licence, page, pinned


def described(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


def test_the_page_of_licences_is_that_of_the_locked_packages() -> None:
    assert PLACE.read_text("utf-8") == page(pinned(LOCK.read_text("utf-8")), installed), "run make docs"


def test_every_package_at_run_time_may_be_one_program_with_libnftables() -> None:
    licences = {name: licence(installed(name)) for name in pinned(LOCK.read_text("utf-8"))}
    assert licences
    for name, said in licences.items():
        choices = [part.strip("() ") for part in re.split(r"\bOR\b", said)]
        assert set(choices) & set(COMPATIBLE), f"{name}: {said}"


def test_a_name_by_spdx_counts_before_what_was_written_in_former_times() -> None:
    said = described(Name="x", License_Expression="ISC", License="MIT", Classifier="License :: OSI Approved")
    assert licence(said) == "ISC"
    assert licence(described(Name="x", Classifier="License :: OSI Approved :: MIT License")) == "MIT"


@pytest.mark.parametrize("text", ["", "BSD", "see LICENSE", "Apache 2.0"])
def test_a_licence_that_is_not_certain_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="x: no licence that is certain"):
        licence(described(Name="x", License=text, Classifier="License :: OSI Approved :: BSD License"))


def test_another_version_than_the_locked_one_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"x 2 is installed, and 1 locked: run scripts/test check"):
        page({"x": "1"}, lambda _: described(Name="x", Version="2", License="MIT"))
