"""`polywan metrics`: what `status` knows, as Prometheus reads it, on the output or in a file."""

from __future__ import annotations

import time
from pathlib import Path

import click

from polywan import files
from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.cli import options
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import ControlError, NotPermitted, PolywanError
from polywan.core.metrics.exposition import Format, text

_ABSENT = (0, 503)
"""Status of a refusal by no daemon, or by one that has too much to do."""


def _period(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    from pydantic_core import PydanticCustomError

    from polywan.config.kinds.scalars import Duration

    if value is None:
        return None
    try:
        return float(Duration(1, 3600).parse(value))
    except PydanticCustomError as error:
        raise click.BadParameter((error.context or {})["message"]) from error


@click.command(name="metrics")
@click.option(
    "--format",
    "form",
    type=click.Choice([str(form) for form in Format]),
    help="How it is written.  [default: openmetrics; with --out prometheus, which is what node_exporter reads]",
)
@click.option("--out", "-o", type=options.path, help="Replace this file as a whole instead of printing.")
@click.option(
    "--every", metavar="TIME", callback=_period, help="Write the file again and again, such as every 15s, until Ctrl-C."
)
@options.runtime
def command(form: str | None, out: Path | None, every: float | None, runtime_dir: Path | None) -> None:
    """Print what `polywan status` knows as metrics for Prometheus.

    With --out the metrics are in a file, for the textfile collector of node_exporter: its name has to end with .prom.
    Everybody may read the file. While no daemon answers, it says polywan_up 0 and nothing else.

    docs/guide/metrics.md explains every metric.

    \b
    Examples:
      polywan metrics
      polywan metrics | grep polywan_uplink_state
      polywan metrics --out /var/lib/prometheus/node-exporter/polywan.prom
      polywan metrics --out /var/lib/prometheus/node-exporter/polywan.prom --every 15s
    """
    client = Client(resolve(runtime_dir))
    if out is None:
        if every is not None:
            raise click.UsageError("--every needs --out")
        chosen = Format(form or Format.OPENMETRICS)
        click.echo(text(client.ask(calls.STATUS, Nothing()), chosen), nl=False)
        return
    chosen = Format(form or Format.PROMETHEUS)
    problem = _written(client, out, chosen)
    if every is None:
        if problem is not None:
            raise problem
        return
    _repeat(client, out, chosen, every, problem)


def _repeat(client: Client, out: Path, form: Format, every: float, problem: ControlError | None) -> None:
    """Write the file every so many seconds; a daemon that does not answer is reported once, and waited for."""
    away, at = False, time.monotonic()
    while True:
        if problem is not None and not away:
            click.echo(f"{problem}; waiting for it", err=True)
        away = problem is not None
        at = max(at + every, time.monotonic())
        time.sleep(at - time.monotonic())
        problem = _written(client, out, form)


def _written(client: Client, out: Path, form: Format) -> ControlError | None:
    """Write the file; return why no daemon answered, if none did.

    Raises:
        ControlError: the daemon refuses.
        PolywanError: the file cannot be written.
    """
    problem, status = None, None
    try:
        status = client.ask(calls.STATUS, Nothing())
    except ControlError as error:
        if error.status not in _ABSENT:
            raise
        problem = error
    try:
        # It is soon written anew: no need to wear out a flash memory for it.
        files.exchange(out, text(status, form).encode(), 0o644, durable=False)
    except PermissionError as error:
        raise NotPermitted(f"cannot write {out}: permission denied; choose another --out") from error
    except OSError as error:
        raise PolywanError(f"cannot write {out}: {(error.strerror or str(error)).lower()}") from error
    return problem
