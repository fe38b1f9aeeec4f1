"""`polywan quota`: what is used of each quota; enter what the provider says, or what was bought."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import Nothing
from polywan.api.status import UplinkStatus
from polywan.api.views.quota import QuotaStatus, SetQuota
from polywan.cli import options
from polywan.cli.fitting import COLUMN_GAP, Column, table, terminal_width
from polywan.cli.units import size
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.words import printable

ENTRY_TIMEOUT = 60.0
"""Seconds that the daemon may take to put an entry in force and on disk."""


@click.command(name="quota")
@click.argument("name", required=False, shell_complete=options.uplinks)
@click.option("--reading", metavar="AMOUNT", help="What the provider says was used, such as 37.2GB; needs root.")
@click.option("--bought", metavar="AMOUNT", help="What was bought in addition, such as 10GB; needs root.")
@options.as_json
@options.runtime
@click.pass_context
def command(
    ctx: click.Context,
    name: str | None,
    reading: str | None,
    bought: str | None,
    as_json: bool,
    runtime_dir: Path | None,
) -> None:
    """Show what is used of the quota of every uplink, or of uplink NAME; enter what the provider counts.

    Bytes are counted on from what `--reading` says. `--bought` adds to the month, or fills a prepaid bucket.

    \b
    Examples:
      polywan quota
      polywan quota lte --reading 37.2GB
      polywan quota sat --bought 10GB
      polywan quota --json | jq '.quotas[] | select(.state != "within")'
    """
    client = Client(resolve(runtime_dir), ENTRY_TIMEOUT)
    if reading is not None or bought is not None:
        if name is None:
            raise click.UsageError("say which uplink: polywan quota NAME --reading 37.2GB")
        done = client.ask(calls.QUOTA, SetQuota(name=name, reading=reading, bought=bought))
        click.echo(json.dumps(encode(done), indent=2) if as_json else f"{done.uplink}: {done.quota.text}")
        for warning in done.warnings:
            click.echo(f"warning: {warning}", err=True)
        ctx.exit(0 if done.saved else 1)
    found = _wanted(client.ask(calls.STATUS, Nothing()).uplinks, name)
    if as_json:
        document = {"quotas": [{"uplink": each, **encode(quota)} for each, quota in found]}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(_detail(*found[0]) if name else _table(found)))


def _wanted(uplinks: Sequence[UplinkStatus], name: str | None) -> list[tuple[str, QuotaStatus]]:
    """Return the uplinks that have a quota, or the one that is asked for.

    Raises:
        click.UsageError: there is no such uplink, or it has no quota.
    """
    if name is not None and name not in [uplink.name for uplink in uplinks]:
        raise click.UsageError(f"there is no uplink {printable(name)}; `polywan status` lists them")
    found = [(u.name, u.quota) for u in uplinks if u.quota is not None and name in (None, u.name)]
    if name is not None and not found:
        raise click.UsageError(f"uplink {name} has no quota: add [uplinks.{name}.quota] to the configuration")
    return found


def _table(found: Sequence[tuple[str, QuotaStatus]]) -> Iterator[str]:
    if not found:
        yield "no uplink has a quota: add [uplinks.NAME.quota] to the configuration"
        return
    quotas = [quota for _, quota in found]
    columns = {
        "uplink": Column("UPLINK", [name for name, _ in found]),
        "state": Column("STATE", [quota.state for quota in quotas]),
        "used": Column("USED", [size(quota.used_bytes) for quota in quotas], number=True),
        "of": Column("OF", [size(quota.hard_bytes) for quota in quotas], number=True),
        "forecast": Column("FORECAST", [_amount(quota.forecast_bytes) for quota in quotas], number=True),
        "out": Column("RUNS OUT", [_day(quota.runs_out) for quota in quotas]),
        "resets": Column("RESETS", [_day(quota.resets) for quota in quotas]),
        "now": Column("ACTION", [quota.action for quota in quotas]),
    }
    for cells in table(columns, ("out", "forecast", "resets"), terminal_width()):
        yield COLUMN_GAP.join(cells).rstrip()


def _detail(name: str, quota: QuotaStatus) -> Iterator[str]:
    yield f"{name}: {quota.text}"
    rows = {
        "state": f"{quota.state}, action: {quota.action}",
        "used": f"{size(quota.used_bytes)} since {_day(quota.since)}",
        "limits": f"soft {_amount(quota.soft_bytes)}, hard {size(quota.hard_bytes)}",
        "resets": _day(quota.resets),
        "forecast": _amount(quota.forecast_bytes),
        "runs out": _day(quota.runs_out),
        "provider": "-" if quota.reading_bytes is None else f"{size(quota.reading_bytes)}, {_day(quota.reading_at)}",
    }
    for label, text in rows.items():
        yield f"  {label:<12}{text}"


def _amount(count: int | None) -> str:
    return "-" if count is None else size(count)


def _day(moment: str | None) -> str:
    return "-" if moment is None else datetime.fromisoformat(moment).astimezone().date().isoformat()
