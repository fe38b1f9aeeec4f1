"""`polywan check`: is the configuration good?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import which
from typing import Final

import click

from polywan.child import CLEAN
from polywan.cli import exit_code, options
from polywan.config import Config, load_with_warnings
from polywan.config.loading import prefix_file
from polywan.config.loading.prefix_file import ListError
from polywan.core.errors import ConfigError, Problem
from polywan.core.words import counted, printable
from polywan.core.world import prefix_lists
from polywan.core.world.lookups import PrefixList, users, wanted

HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - nothing is written there
"""Directories that the unit of packaging/ hides."""


@click.command(name="check")
@options.config
@options.as_json
@click.pass_context
def command(ctx: click.Context, config_path: Path, as_json: bool) -> None:
    """Check the configuration: every problem at once, with file, line and key. Nothing is changed.

    Warns of rules that can never match, of lists that cannot be read, of hooks that cannot be called, and of what on
    this machine keeps the file from working; warnings do not change the exit code.

    \b
    Examples:
      polywan check
      polywan check --config ./polywan.toml --json
    """
    try:
        loaded = load_with_warnings(config_path)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": _listed(error.problems)}, indent=2))
        else:
            click.echo(str(error), err=True)
            count = len(error.problems)
            click.echo(f"{count} problem{'s' if count != 1 else ''}; nothing was changed", err=True)
        ctx.exit(exit_code(error))
    config = loaded.config
    policies = config.resolved_policies()
    warnings = [*loaded.warnings, *_lists(config), *_programs(config)]
    from polywan.daemon import here

    found = here.warnings(config)
    if as_json:
        facts = {"ok": True, "uplinks": list(config.uplinks), "policies": list(policies)}
        parts = [{"where": "this machine", "key": "", "message": text, "hint": ""} for text in found]
        click.echo(json.dumps({**facts, "warnings": [*_listed(warnings), *parts]}, indent=2))
        return
    for warning in (*warnings, *found):
        click.echo(f"warning: {warning}", err=True)
    named = f"{len(policies)} {'policy' if len(policies) == 1 else 'policies'}"
    sizes = f"{counted(len(config.uplinks), 'uplink')}, {named}, {counted(len(config.rules), 'rule')}"
    click.echo(f"{config_path}: OK ({sizes})")


def _lists(config: Config) -> Iterator[Problem]:
    """Look at the files of prefixes as the daemon will: what is wrong there is no fault of the configuration."""
    rules = users(config)
    for path in wanted(config).lists:
        key = f"rules[{rules[path][0] - 1}].list"
        kept = "until it is fixed, this condition never matches"
        try:
            parsed = prefix_lists.parse(prefix_file.read(Path(path))[1])
        except ListError as error:
            yield Problem(path, key, f"{error}; {kept}")
        else:
            if not isinstance(parsed, PrefixList):
                yield Problem(f"{path}:{parsed[0].line}", key, f"{parsed[0].message}; {kept}", parsed[0].hint)


def _programs(config: Config) -> Iterator[Problem]:
    """Look at the programs of hooks; whether the daemon's user may run them is seen when it does."""
    for hook in type(config.hooks).model_fields:
        command = config.hooks.command(hook) if hook != "timeout" else None
        if command is None:
            continue
        found = which(command[0], path=CLEAN["PATH"])
        key = f"hooks.{hook}"
        if "/" in command[0] and not command[0].startswith("/"):
            text = "is a relative path, and the daemon calls hooks from /, so the hook cannot be called"
            yield Problem(printable(command[0]), key, text, "write the whole path")
        elif found is None:
            there = os.path.isfile(command[0])
            text = "is not executable" if there else "does not exist"
            hint = f"chmod +x {command[0]}" if there else ""
            yield Problem(printable(command[0]) or '""', key, f"{text}, so the hook cannot be called", hint)
        elif found.startswith(HIDDEN):
            text = "is where the service cannot see it (ProtectHome, PrivateTmp), so the hook cannot be called"
            yield Problem(printable(found), key, text, "move it below /etc/polywan")


def _listed(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"where": p.where, "key": p.key, "message": p.message, "hint": p.hint} for p in problems]
