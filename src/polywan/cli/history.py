"""`polywan history`: the configurations that were in force."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Nothing, OfPast
from polywan.api.trials import Past
from polywan.cli import options
from polywan.client import Client, senseless
from polywan.client import runtime_dir as resolve
from polywan.core.trial.texts import received
from polywan.core.words import printable


@click.command(name="history")
@click.argument("number", type=click.IntRange(min=0), required=False, metavar="[N]")
@click.option("--diff", is_flag=True, help="Show what is different from what is in force.")
@options.as_json
@options.runtime
def command(number: int | None, diff: bool, as_json: bool, runtime_dir: Path | None) -> None:
    """List the last ten configurations in force, newest first; with N, print the text of one (needs root).

    Number 0 is in force. `polywan rollback N` puts one back.

    \b
    Examples:
      polywan history
      polywan history 1
      polywan history 1 --diff
    """
    client = Client(resolve(runtime_dir))
    if number is None:
        found = client.ask(calls.HISTORY, Nothing())
        if found.problem:
            click.echo(f"warning: {found.problem}", err=True)
        lines = json.dumps(encode(found), indent=2) if as_json else "\n".join(map(_line, found.entries))
        click.echo(lines or "nothing yet")
        return
    files = _texts(client, number)
    if diff:
        from polywan.cli.rollback import difference

        click.echo("\n".join(difference(_texts(client, 0), files)) or "no difference")
    elif as_json:
        click.echo(json.dumps(files, indent=2))
    else:
        shown = (f"# {name}\n{text}" for name, text in files.items())
        click.echo(printable("\n".join(shown), keep="\n\t"), nl=False)


def _texts(client: Client, number: int) -> dict[str, str]:
    try:
        return received(client.ask(calls.PAST_TEXTS, OfPast(number=str(number))).files)
    except ValueError as error:
        raise senseless(error) from error


def _line(past: Past) -> str:
    when = datetime.fromisoformat(past.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    said = "; ".join(past.changes) or ("the first one known" if past.how == "start" else "no change in what it says")
    kept = "" if past.kept else " (its text was too large to be kept)"
    return f"{past.number:2}  {when}  {past.user:10}  {past.how:8}  {said}{kept}"
