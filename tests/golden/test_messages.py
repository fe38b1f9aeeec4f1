"""Every sentence that users read is in messages.txt, so that a change of wording is read as one.

``pytest tests/golden --update-golden`` (or ``make golden``) writes it anew.
"""

import re
from pathlib import Path

import pytest

from support.messages import SOURCE, document, messages

GOLDEN = Path(__file__).parent / "messages.txt"
REFERENCE = Path(__file__).parents[2] / "docs/config.md"

RULED_OUT = re.compile(
    r"\b(nobody|somebody|anybody|whoever|put right|lets? go of|is (told|asked|held|blamed)|each (second|\d+ ?m?s))\b"
    r"|(?<!such) as [\"\[{]",
    re.IGNORECASE,
)
"""What docs/design/style.md replaces by other words and a pattern can find."""


def test_the_sentences_are_as_recorded(request: pytest.FixtureRequest) -> None:
    found = document(SOURCE.rglob("*.py"))
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8"), (
        "wording changed; read it, then pytest tests/golden --update-golden"
    )


@pytest.mark.parametrize("path", [GOLDEN, REFERENCE], ids=lambda p: p.name)
def test_no_sentence_has_a_phrase_that_the_style_page_rules_out(path: Path) -> None:
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if RULED_OUT.search(line)] == []


def test_what_is_filled_in_is_a_hole() -> None:
    assert messages('f"{name} is up for {seconds:.{digits}f} s"') == ["{} is up for {} s"]


def test_a_sentence_that_is_written_in_pieces_is_one() -> None:
    assert messages('log("drain: %s of " f"{name} " "ended")') == ["drain: %s of {} ended"]


def test_sentences_within_what_is_filled_in_are_found() -> None:
    assert messages("""f"{name}{' down' if bad else ''}" """) == []
    assert messages("""f"{name}{' is down again' if bad else ''}" """) == [" is down again"]


def test_docstrings_are_sentences_for_users_only_when_they_are_the_help_of_a_verb() -> None:
    assert messages('"""A module of code."""\n\ndef f():\n    """Do a thing."""') == []
    assert messages('@click.command(name="f")\ndef f():\n    """Do a thing."""') == ["Do a thing."]


def test_single_words_and_names_of_events_are_no_sentences() -> None:
    assert messages('Log(level, "uplink.down", f"{name}")\nstate = "up"\nkey = f"uplink.{state}"') == []


def test_descriptions_of_keys_are_left_to_their_reference() -> None:
    assert messages('Field(default=1, description="Seconds from " f"{a} to b")') == []
