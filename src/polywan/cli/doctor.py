"""`polywan doctor`: what is wrong with this machine, and how it is mended."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import click

from polywan.api.codec import encode
from polywan.api.doctor import Diagnosis, Finding
from polywan.cli import options
from polywan.core.words import counted, printable

SEVERITY_COLOURS: Final = {"fault": "red", "warning": "yellow", "note": "cyan"}
FOUND: Final = 6
"""Exit code when something is worse than a note."""


@click.command(name="doctor")
@click.argument("checks", metavar="[CHECK]...", nargs=-1)
@click.option("--fix", is_flag=True, help="Show the fixes as a plan, ask, carry them out, and look again.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("-v", "--verbose", is_flag=True, help="Also name the checks that found nothing.")
@options.config
@options.runtime
@options.state
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    checks: tuple[str, ...],
    fix: bool,
    yes: bool,
    verbose: bool,
    config_path: Path,
    runtime_dir: Path | None,
    state_dir: Path,
    as_json: bool,
) -> None:
    """Find what is wrong with this machine's uplinks, also those that scripts set up, and how to fix it.

    Works with a daemon, without one, and before there is a configuration. Changes nothing without --fix, sends to
    routers and health targets only, and takes a few seconds. What is checked: docs/guide/doctor.md.

    With CHECK, only these checks are made.

    Exits with 6 when something is wrong or will be, 0 when at most notes were found.

    \b
    Examples:
      polywan doctor
      polywan doctor --json | jq '.findings[] | {check, what}'
      polywan doctor --fix
      polywan doctor strict-rp-filter forward-drop
    """
    if yes and not fix:
        raise click.UsageError("--yes goes with --fix")
    if fix and as_json and not yes:
        raise click.UsageError("--fix asks, so that --json needs --yes as well")
    look = partial(_look, checks, config_path, state_dir, runtime_dir)
    found = look()
    if fix and _mended(found, yes=yes):
        found = look()
    click.echo(json.dumps(encode(found), indent=2) if as_json else text(found, verbose=verbose))
    ctx.exit(0 if found.healthy else FOUND)


def _look(wanted: tuple[str, ...], config: Path, state_dir: Path, runtime_dir: Path | None) -> Diagnosis:
    from polywan.config.faults import absent
    from polywan.doctor.checks import CHECKS
    from polywan.doctor.examine import examine
    from polywan.doctor.reading.collect import Places, read_box

    names = [check.name for check in CHECKS]
    for name in wanted:
        if name not in names:
            raise click.UsageError(absent("check", name, names))
    chosen = [check for check in CHECKS if not wanted or check.name in wanted]
    if sys.stderr.isatty():
        click.echo("looking, which takes up to 10 s ...", err=True)
    began = time.monotonic()
    box = asyncio.run(read_box(Places(config=config, state_dir=state_dir, runtime_dir=runtime_dir)))
    return examine(box, chosen, time.monotonic() - began)


def text(found: Diagnosis, *, verbose: bool = False) -> str:
    """Return a diagnosis for people."""
    lines = [line for finding in found.findings for line in (*_of(finding), "")]
    lines += [f"not checked: {skipped.check}: {printable(skipped.reason)}" for skipped in found.not_checked]
    lines += [f"fine: {', '.join(_fine(found))}"] if verbose else []
    worse = sum(finding.severity != "note" for finding in found.findings)
    what = f"{counted(worse, 'thing')} to mend" if worse else "nothing to mend"
    lines.append(f"{counted(len(found.checked), 'check')} in {found.seconds:.1f} s: {what}")
    if any(finding.fix and finding.fix.steps for finding in found.findings if finding.severity != "note"):
        lines[-1] += "; `polywan doctor --fix` shows what it would do, and asks"
    return "\n".join(lines)


def _fine(found: Diagnosis) -> list[str]:
    named = {finding.check for finding in found.findings}
    return [name for name in found.checked if name not in named]


def _of(finding: Finding) -> Iterator[str]:
    yield click.style(f"{finding.severity}: {printable(finding.what)}", fg=SEVERITY_COLOURS[finding.severity])
    yield f"  {printable(finding.consequence)}"
    yield from (f"  seen: {printable(line)}" for line in finding.evidence)
    if finding.fix is not None:
        from polywan.doctor.mending import shown

        yield f"  fix: {printable(finding.fix.how)}"
        yield from (f"    {printable(shown(step))}" for step in finding.fix.steps)


def _mended(found: Diagnosis, *, yes: bool) -> bool:
    """Carry out the fixes, if that is wanted; True when anything was done."""
    from polywan.doctor import mending

    wrong = [finding for finding in found.findings if finding.severity != "note"]
    plan = mending.steps(wrong)
    if not plan:
        click.echo("nothing that can be fixed from here" if wrong else "nothing to fix", err=True)
        return False
    for step in plan:
        click.echo(f"would do: {printable(mending.shown(step))}", err=True)
    if not yes and not click.confirm(f"Do {'this' if len(plan) == 1 else f'these {len(plan)} steps'}?", err=True):
        return False
    for step in plan:
        mending.carry_out(step)
        click.echo(f"done: {printable(mending.shown(step))}", err=True)
    return True
