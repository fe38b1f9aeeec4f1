"""`polywan status`: every uplink, its state, share and why."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from polywan.cli import options
from polywan.cli.units import duration, size
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.verdict import exit_code

COLOURS = {
    "up": "green",
    "degraded": "yellow",
    "draining": "yellow",
    "down": "red",
    "missing": "red",
    "disabled": "bright_black",
    "drained": "bright_black",
}
COLUMNS = ("UPLINK", "STATE", "FOR", "SHARE", "RTT", "LOSS", "CONNS", "DOWN", "UP", "REASON")


@click.command(name="status")
@options.runtime
@options.as_json
@click.option("--check", is_flag=True, help="Exit with 6 when an uplink is not up, 7 when none is.")
@click.option("--watch", is_flag=True, help="Show it again each second until Ctrl-C.")
@click.pass_context
def command(ctx: click.Context, runtime_dir: Path | None, as_json: bool, check: bool, watch: bool) -> None:
    """Show every uplink: state, since when, share of new connections, quality, traffic and the reason.

    \b
    Examples:
      polywan status
      polywan status --json | jq '.uplinks[] | {name, state}'
      polywan status --check && echo all up
    """
    client = Client(resolve(runtime_dir))
    while True:
        status = client.status()
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(json.dumps(status, indent=None if watch else 2) if as_json else text(status))
        if not watch:
            break
        time.sleep(1)
    ctx.exit(exit_code(status) if check else 0)


def text(status: dict[str, Any]) -> str:
    """Return the status as a table for people, warnings below it."""
    rows = [COLUMNS, *(_row(uplink) for uplink in status["uplinks"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if number:
            cells[1] = click.style(cells[1], fg=COLOURS.get(row[1]))
        lines.append("  ".join(cells).rstrip())
    for policy in status["policies"]:
        for family, choice in policy["families"].items():
            members = ", ".join(f"{m['uplink']} {100 * m['share']:.0f} %" for m in choice["members"]) or "nobody"
            lines.append(f"{policy['title']} ({family}): {members}: {choice['reason']}")
    lines += [line for uplink in status["uplinks"] if uplink.get("metered") for line in _volume(uplink)]
    lines += [click.style(f"warning: {warning}", fg="yellow") for warning in status["warnings"]]
    lines += [f"put right: {drift}" for drift in status["drift"]]
    return "\n".join(lines)


def _row(uplink: dict[str, Any]) -> tuple[str, ...]:
    return (
        uplink["name"],
        uplink["state"],
        _age(uplink["since"]),
        f"{100 * uplink['share']:.1f} %",
        "-" if uplink["rtt_ms"] is None else f"{uplink['rtt_ms']:.1f} ms",
        "-" if uplink["loss"] is None else f"{100 * uplink['loss']:.0f} %",
        str(uplink["connections"]),
        _rate(uplink["rx_bps"]),
        _rate(uplink["tx_bps"]),
        uplink["reason"] + _left(uplink),
    )


def _left(uplink: dict[str, Any]) -> str:
    """What is to be said of an uplink that is being left."""
    leaving = uplink.get("leaving")
    if leaving is None:
        return ""
    left = f"; {uplink['connections']} connections are left"
    if leaving["by_hand"] or leaving["deadline"] is None:
        return left
    return f"{left}, ended in {duration(max(0.0, -_seconds_since(leaving['deadline'])))}"


def _volume(uplink: dict[str, Any]) -> list[str]:
    """What probing costs, where volume costs money."""
    spent, month = uplink.get("probe_bytes", 0), uplink.get("probe_bytes_month")
    if not spent:
        return []
    rate = f", about {size(month)} a month" if month is not None else ""
    return [f"{uplink['name']}: probes: {size(spent)} since start{rate}"]


def _age(since: str | None) -> str:
    if since is None:
        return "-"
    return duration(max(0.0, _seconds_since(since)))


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _rate(bits: float) -> str:
    for least, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= least:
            return f"{bits / least:.1f} {unit}"
    return f"{bits:.0f} bit/s"
