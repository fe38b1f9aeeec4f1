"""Texts in the language of manual pages, which has characters of its own."""

from __future__ import annotations

import pytest
from deb.roff import escaped, inline, of_markdown


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("plain", "plain"),
        (".TH begins no line", r"\&.TH begins no line"),
        ("'quoted'", r"\(aqquoted\(aq"),
        (r"a\b", r"a\eb"),
        ("--json", r"\-\-json"),
    ],
)
def test_what_means_something_to_roff_is_shown_as_it_is(text: str, page: str) -> None:
    assert escaped(text) == page


def test_code_is_bold_and_a_link_is_its_text() -> None:
    assert inline("see `polywan -v` and [there](a/b.md)") == r"see \fBpolywan \-v\fR and there"


def test_a_document_keeps_its_headings_lists_and_code() -> None:
    text = "Words.\n\n## Title\n\n### `key`\n\n- one\n- two\n\n```toml\n[a]\n.b = 1\n```\n\nEnd.\n"
    assert list(of_markdown(text)) == [
        *("Words.", ".SH Title", r".SS \fBkey\fR"),
        *(r".IP \(bu 2", "one", r".IP \(bu 2", "two"),
        *(".PP", ".RS 4", ".nf", "[a]", r"\&.b = 1", ".fi", ".RE", ".PP", "End."),
    ]
