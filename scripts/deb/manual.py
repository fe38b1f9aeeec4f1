"""Manual pages from what the command says of itself by --help, and of the file from its reference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Final

import click

from deb.roff import escaped, heading, inline, of_markdown, verbatim
from polywan import __version__
from polywan.cli import VERBS, group
from polywan.config.reference.markdown import markdown

_FILES: Final = (
    ("/etc/polywan/polywan.toml", "the configuration"),
    ("/var/lib/polywan", "what the daemon remembers"),
    ("/run/polywan/control.sock", "where the daemon listens"),
    ("/usr/share/doc/polywan", "guides and examples"),
)


@dataclass(frozen=True, slots=True)
class _Help:
    """A help text in its parts.

    Attributes:
        paragraphs: prose.
        examples: lines below `Examples:`.
        exits: the paragraph about exit codes.
    """

    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]
    exits: str


def pages(date: str) -> Mapping[str, str]:
    """Return the text of each page, by file name.

    Args:
        date: as it is shown in their feet, such as 2026-11-30.
    """
    found = {"polywan.1": _page(_overview(date)), "polywan.toml.5": _page(_file(date))}
    context = _context()
    for verb, summary in VERBS.items():
        command = group.get_command(context, verb)
        if command is None:
            raise LookupError(verb)
        found[f"polywan-{verb}.1"] = _page(_verb(verb, summary, command, context, date))
    return found


def _page(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _context() -> click.Context:
    return click.Context(group, info_name="polywan", **group.context_settings)


def _overview(date: str) -> Iterator[str]:
    context = _context()
    parts = _parts(group)
    yield heading("polywan", 1, date, __version__)
    yield from (".SH NAME", r"polywan \- use every Internet link of a Linux box at once")
    yield from (".SH SYNOPSIS", r"\fBpolywan\fR \fIVERB\fR [\fIOPTIONS\fR] [\fIARGS\fR]...")
    yield ".SH DESCRIPTION"
    yield from _prose(parts.paragraphs)
    yield ".SH VERBS"
    for verb, summary in VERBS.items():
        yield from (".TP", rf"\fBpolywan\-{escaped(verb)}\fR(1)", inline(summary))
    yield from _options(group, context)
    yield from _examples(parts)
    yield ".SH EXIT STATUS"
    yield inline(_after_colon(group.epilog or ""))
    yield ".SH FILES"
    for path, what in _FILES:
        yield from (".TP", rf"\fI{escaped(path)}\fR", inline(what))
    yield from (".SH SEE ALSO", r"\fBpolywan.toml\fR(5), \fBnft\fR(8), \fBip\-rule\fR(8)")


def _verb(verb: str, summary: str, command: click.Command, parent: click.Context, date: str) -> Iterator[str]:
    context = click.Context(command, info_name=verb, parent=parent)
    yield heading(f"polywan-{verb}", 1, date, __version__)
    yield from (".SH NAME", rf"polywan\-{escaped(verb)} \- {escaped(summary)}")
    yield ".SH SYNOPSIS"
    yield _synopsis(command, context)
    parts = _parts(command)
    yield ".SH DESCRIPTION"
    yield from _prose(parts.paragraphs)
    yield from _options(command, context)
    if isinstance(command, click.Group):
        yield from _commands(command, context)
    yield from _examples(parts)
    yield ".SH EXIT STATUS"
    yield inline(parts.exits or "See \N{GRAVE ACCENT}polywan\N{GRAVE ACCENT}(1).")
    yield from (".SH SEE ALSO", r"\fBpolywan\fR(1), \fBpolywan.toml\fR(5)")


def _commands(command: click.Group, context: click.Context) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is None:
            raise LookupError(name)
        inner = click.Context(below, info_name=name, parent=context)
        parts = _parts(below)
        yield f".SS {_synopsis(below, inner)}"
        yield from _prose(parts.paragraphs)
        for option in _records(below, inner):
            yield from option
        if parts.examples:
            yield ".PP"
            yield from verbatim(parts.examples)


def _synopsis(command: click.Command, context: click.Context) -> str:
    pieces = (escaped(piece) for piece in command.collect_usage_pieces(context))
    return " ".join((rf"\fB{escaped(context.command_path)}\fR", *pieces))


def _parts(command: click.Command) -> _Help:
    """Divide a help text; a backspace stands before what keeps its lines (click)."""
    blocks = re.split(r"\n\s*\n", f"{_text(command.help)}\n\n{_text(command.epilog)}")
    paragraphs, examples, exits = [], [], ""
    for block in blocks:
        lines = [line for line in block.splitlines() if line.strip() and line != "\b"]
        words = " ".join(line.strip() for line in lines)
        if words.startswith("Examples:"):
            examples = [line.removeprefix("  ") for line in lines[1:]]
        elif words.startswith("Exit"):
            exits = words
        elif words:
            paragraphs.append(words)
    return _Help(tuple(paragraphs), tuple(examples), exits)


def _text(words: str | None) -> str:
    return "" if words is None else cleandoc(words)


def _prose(paragraphs: tuple[str, ...]) -> Iterator[str]:
    for number, words in enumerate(paragraphs):
        if number:
            yield ".PP"
        yield inline(words)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for lines in _records(command, context):
        yield from lines


def _records(command: click.Command, context: click.Context) -> Iterator[tuple[str, str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        # Arguments are in the synopsis, and the description says what they are.
        if record is not None and not isinstance(parameter, click.Argument):
            names, words = record
            yield ".TP", rf"\fB{escaped(names)}\fR", inline(re.sub(r"\s+", " ", words))


def _examples(parts: _Help) -> Iterator[str]:
    if parts.examples:
        yield ".SH EXAMPLES"
        yield from verbatim(parts.examples)


def _after_colon(words: str) -> str:
    text = re.sub(r"[\s\b]+", " ", words).strip().partition(": ")[2]
    return text[:1].upper() + text[1:]


def _file(date: str) -> Iterator[str]:
    yield heading("polywan.toml", 5, date, __version__)
    yield from (".SH NAME", r"polywan.toml \- configuration of polywan", ".SH DESCRIPTION")
    # The title, and who wrote the document, are for readers of the repository.
    text = re.sub(r"\A# .*\n|<!-- .* -->\n", "", markdown())
    yield from of_markdown(text.lstrip("\n"))
    yield from (".SH SEE ALSO", r"\fBpolywan\fR(1), \fBpolywan\-check\fR(1)")
