"""`polywan init`: find the uplinks and write the file."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from polywan import files, presence
from polywan.cli import options
from polywan.cli.fitting import terminal_width
from polywan.config import Config, file_texts, load, load_as_if
from polywan.core.detection import comparing, writing
from polywan.core.detection.candidates import Seen, Survey
from polywan.core.errors import NotPermitted, PolywanError
from polywan.core.words import counted

if TYPE_CHECKING:
    from polywan.daemon.detecting import Found

_WORDS: Final = {"uplink": "uplink", "not": "no uplink", "ask": "uplink?"}
_MOST_NAMES: Final = 4
_MOST_CHANGES: Final = 50

_NOTHING: Final = (
    "no uplink found: no link has a default route in any table, a connected PPP session or modem, or a DHCP lease",
    "let each link get its address first (DHCP, pppd), with a metric of its own, or add its default route:",
    "  ip route add default via ROUTER dev DEVICE metric 101",
    "then run `polywan init` again",
)


@click.command(name="init")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing: take what is sure or likely, and write the file.")
@click.option("--print", "print_only", is_flag=True, help="Print the file instead of writing it; asks nothing.")
@options.config
@options.state
@options.as_json
@click.pass_context
def command(ctx: click.Context, yes: bool, print_only: bool, config_path: Path, state_dir: Path, as_json: bool) -> None:
    """Find the uplinks of this machine, say why each link is one or not, and write the configuration.

    Then show what the daemon would change in the kernel. Nothing but the file is written. A file that is there already
    stays as it is: the difference is shown, and the exit code is 9 when there is one.

    --json asks nothing, and writes the file only with --yes.

    \b
    Examples:
      polywan init
      polywan init --yes
      polywan init --print
    """
    from polywan.daemon import detecting

    found = detecting.look()
    asking = not (yes or print_only or as_json)
    if not as_json:
        for line in _seen(found.survey):
            click.echo(line, err=print_only)
    if os.path.lexists(config_path) and not print_only:
        ctx.exit(_compare(found, config_path, as_json=as_json))
    if asking and found.survey.candidates and not sys.stdin.isatty():
        raise click.UsageError("init asks questions, and there is no terminal: use --yes to write, or --print to look")
    proposal = _decide(found, asking=asking)
    if not proposal.uplinks:
        _nothing(found.survey, config_path, as_json=as_json)
        ctx.exit(1)
    text = writing.text(proposal)
    config = load_as_if(config_path, text).config
    if as_json:
        if yes and not print_only:
            _write(config_path, text)
        facts = _facts(found.survey, config_path, text, config.uplinks)
        click.echo(json.dumps({**facts, "written": yes and not print_only}, indent=2))
    elif print_only:
        click.echo(text, nl=False)
    else:
        click.echo(f"\n{textwrap.indent(text, '    ')}")
        if asking and not click.confirm(f"Write {config_path}?", default=True, err=True):
            click.echo("nothing was written", err=True)
            return
        _write(config_path, text)
        click.echo(f"{config_path} written", err=True)
        _show_plan(config, state_dir)
        _go_on(ctx, config_path, len(proposal.uplinks), asking=asking)


def _nothing(survey: Survey, path: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**_facts(survey, path, "", ()), "written": False}, indent=2))
    elif survey.candidates:
        click.echo("no link was taken for an uplink: nothing was written", err=True)
    else:
        click.echo("\n".join(("", *_NOTHING)), err=True)


def _seen(survey: Survey) -> Iterator[str]:
    """Yield a line for each link; those with the same to say of them share one."""
    rows = [
        (_names([seen.link for seen in alike]), _WORDS[verdict], why, note)
        for (verdict, why, note), alike in _alike(survey.seen)
    ]
    room = terminal_width()
    first = max((len(row[0]) for row in rows), default=0)
    second = max((len(row[1]) for row in rows), default=0)
    margin = " " * (first + second + 4)
    for names, verdict, why, note in rows:
        for number, part in enumerate(filter(None, (why, note and f"({note})"))):
            start = f"{names:{first}}  {verdict:{second}}  " if number == 0 else margin
            yield from (
                [start + part]
                if room is None
                else textwrap.wrap(part, room, initial_indent=start, subsequent_indent=margin)
            )
    if survey.passed_over:
        yield f"no uplinks either: {_names(survey.passed_over)}"


def _alike(seen: Sequence[Seen]) -> list[tuple[tuple[str, str, str], list[Seen]]]:
    def what(each: Seen) -> tuple[str, str, str]:
        return each.verdict, each.why, each.note

    first = {what(each): place for place, each in reversed(list(enumerate(seen)))}
    ordered = sorted(seen, key=lambda each: first[what(each)])
    return [(key, list(alike)) for key, alike in groupby(ordered, key=what)]


def _names(links: Sequence[str]) -> str:
    if len(links) <= _MOST_NAMES:
        return ", ".join(links)
    return f"{', '.join(links[: _MOST_NAMES - 1])} and {len(links) - _MOST_NAMES + 1} more"


def _decide(found: Found, *, asking: bool) -> writing.Proposal:
    """Ask what only people can know; without questions, take what is likely."""
    survey = found.survey
    accepted = [
        seen.link
        for seen in survey.seen
        if seen.verdict == "ask"
        and (click.confirm(f"Is {seen.link} an uplink?", default=seen.presumed, err=True) if asking else seen.presumed)
    ]
    forwarding = bool(survey.lans)
    if forwarding and asking and not found.forwards:
        forwarding = click.confirm(
            f"Does this machine route for the LAN behind it, {_names(survey.lans)}?", default=True, err=True
        )
    return writing.propose(survey, accepted, forwarding=forwarding)


def _compare(found: Found, path: Path, *, as_json: bool) -> int:
    """Show how a file that is there differs from the one that would be written; return the exit code."""
    existing = load(path)
    accepted = [seen.link for seen in found.survey.seen if seen.verdict == "ask" and seen.presumed]
    names = comparing.names(existing)
    lans = bool(found.survey.lans)
    proposal = writing.propose(found.survey, accepted, forwarding=lans, names=names)
    text = writing.text(proposal)
    # A file without uplinks would be none: then everything in the present one is the difference.
    proposed = load_as_if(path, text).config if proposal.uplinks else existing.model_copy(update={"uplinks": {}})
    same = existing == proposed
    remarks = list(comparing.remarks(existing, proposed, found.survey, found.observed))
    if as_json:
        facts = {**_facts(found.survey, path, text, proposed.uplinks), "written": False}
        click.echo(json.dumps({**facts, "same": same, "remarks": remarks}, indent=2))
        return 0 if same else 9
    click.echo("")
    if same:
        click.echo(f"{path} is there and says the same: nothing was changed")
        return 0
    click.echo(f"{path} is there: nothing was changed. What init would write differs:\n")
    click.echo(comparing.difference(file_texts(path)[str(path)], text, str(path)))
    click.echo("".join(f"\n{remark}" for remark in remarks))
    return 9


def _facts(survey: Survey, path: Path, text: str, uplinks: Iterable[str]) -> dict[str, Any]:
    seen = [
        {
            "link": each.link,
            "verdict": each.verdict,
            "why": each.why,
            "note": each.note,
            "metered": bool(each.metered),
            "gateways": [str(gateway) for gateway in each.gateways],
            "lan": list(each.lan),
        }
        for each in survey.seen
    ]
    return {
        "seen": seen,
        "passed_over": list(survey.passed_over),
        "uplinks": list(uplinks),
        "path": str(path),
        "text": text,
    }


def _write(path: Path, text: str) -> None:
    try:
        files.create(path, text)
    except PermissionError as error:
        raise NotPermitted(f"cannot write {path}: permission denied; use sudo, or --print to look") from error
    except FileExistsError as error:
        raise PolywanError(f"{path} appeared in the meantime: nothing was changed; run init again") from error
    except OSError as error:
        raise PolywanError(f"cannot write {path}: {error.strerror}") from error


def _show_plan(config: Config, state_dir: Path) -> None:
    from polywan.core.status.rehearsal import planned
    from polywan.daemon import offline

    try:
        done = planned(*offline.plan(config, state_dir, None))
    except PolywanError as error:
        click.echo(f"what would change in the kernel is not shown: {error}", err=True)
        return
    click.echo(f"\nthe daemon would make {counted(len(done.ops), 'change')} in the kernel:")
    for op in done.ops[:_MOST_CHANGES]:
        first, *rest = op.text.splitlines()
        more = f"  … {counted(len(rest), 'more line')}" if rest else ""
        click.echo(f"    {first}{more}")
    if len(done.ops) > _MOST_CHANGES:
        click.echo(f"    … and {len(done.ops) - _MOST_CHANGES} more: polywan plan shows all")
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)


def _go_on(ctx: click.Context, path: Path, uplinks: int, *, asking: bool) -> None:
    """Say what comes next, and offer to look for what is in the way."""
    from polywan.cli import group

    if uplinks == 1:
        click.echo("there is one uplink: it will be watched, and balancing needs a second one", err=True)
    doctor = group.get_command(ctx, "doctor")
    if doctor is not None and asking and click.confirm("Look for problems (polywan doctor)?", default=True, err=True):
        # What it finds is no failure of this verb.
        with suppress(click.exceptions.Exit):
            ctx.invoke(doctor, config_path=path)
    elif doctor is not None:
        click.echo("next: polywan doctor", err=True)
    if presence.found() is not None:
        click.echo("next: polywan reload (a daemon is running)", err=True)
    else:
        click.echo("next: systemctl enable --now polywan, or polywan run in the foreground", err=True)
