"""The language of manual pages, man(7): as much of it as the pages need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

_CODE: Final = re.compile(r"`([^`]+)`")
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def escaped(text: str) -> str:
    """Return text that is shown as it is; a line may begin with it."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("'", r"\(aq")
    plain = plain.replace("^", r"\(ha").replace("~", r"\(ti").replace('"', r"\(dq")
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain


def inline(text: str) -> str:
    """Return a line of Markdown: what is in backquotes is bold, links are their text."""
    words = _LINK.sub(r"\1", text)
    return "".join(rf"\fB{escaped(part)}\fR" if odd else escaped(part) for part, odd in _alternating(words))


def _alternating(text: str) -> Iterator[tuple[str, bool]]:
    for number, part in enumerate(_CODE.split(text)):
        if part:
            yield part, number % 2 == 1


def heading(name: str, section: int, date: str, version: str) -> str:
    """Return the first line of a page."""
    return f'.TH {escaped(name.upper())} {section} "{date}" "polywan {version}" polywan'


def verbatim(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines that keep their shape."""
    yield from (".RS 4", ".nf")
    yield from (escaped(line) for line in lines)
    yield from (".fi", ".RE")


def of_markdown(text: str) -> Iterator[str]:
    """Yield the lines of a page for a document with headings, flat lists, blocks of code and paragraphs."""
    lines = iter(text.splitlines())
    # A heading begins a paragraph by itself, and the document comes after one.
    begun = True
    for line in lines:
        if not line:
            continue
        if line.startswith("#"):
            level, _, title = line.partition(" ")
            yield f".{'SH' if len(level) == 2 else 'SS'} {inline(title)}"
            begun = True
            continue
        if line.startswith("- "):
            yield r".IP \(bu 2"
            yield inline(line.removeprefix("- "))
        else:
            if not begun:
                yield ".PP"
            if line.startswith("```"):
                yield from verbatim(iter(lambda: next(lines), "```"))
            else:
                yield from map(inline, _paragraph(line, lines))
        begun = False


def _paragraph(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from iter(lambda: next(lines, ""), "")
