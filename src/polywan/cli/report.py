"""`polywan report`: a month of the uplinks, for yourself or for the provider."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from polywan import files
from polywan.api import calls
from polywan.api.codec import encode
from polywan.api.requests import OfIncidents, OfMeasurements, OfMonth, OfSpan
from polywan.api.views.measurements import Availability, Incidents, Measurements, Volumes
from polywan.cli import options
from polywan.cli.report_page import page
from polywan.cli.report_text import Month, table, text
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import NotPermitted, PolywanError
from polywan.core.measurements.report import report
from polywan.core.words import printable

FORMATS: Final = {"text": text, "csv": table, "html": page}
_HOUR: Final = 3600.0
_MORE: Final = "there were too many outages and times of bad quality to count all; the newest are listed"


def _month_of(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Read a month; whether it has begun is seen later."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m").strftime("%Y-%m")  # noqa: DTZ007 - a month of local time
    except ValueError:
        from polywan.config.faults import shown

        raise click.BadParameter(f'expected a month such as "2026-11", got {shown(text)}') from None


@click.command(name="report")
@click.option("--uplink", metavar="NAME", shell_complete=options.uplinks, help="Only this uplink.")
@click.option("--month", metavar="YYYY-MM", callback=_month_of, help="The month.  [default: this one]")
@click.option(
    "--format",
    "kind",
    type=click.Choice([*FORMATS]),
    default="text",
    show_default=True,
    help="csv has a row for each day; html is one page to print or send.",
)
@click.option("--out", type=options.path, help="Write it there; the file must not be there yet.")
@options.as_json
@options.runtime
def command(
    uplink: str | None, month: str | None, kind: str, out: Path | None, as_json: bool, runtime_dir: Path | None
) -> None:
    """Show how the uplinks were in a month: availability, outages with evidence, volume, worst hours.

    Time in which no daemon ran is unknown, and counts neither as up nor as down.

    The page of --format html needs nothing but itself and prints on one sheet: send it to your provider.

    \b
    Examples:
      polywan report
      polywan report --uplink fibre --month 2026-11 --format html --out fibre-2026-11.html
      polywan report --month 2026-11 --format csv > november.csv
      polywan report --json | jq .availability
    """
    now = time.time()
    name = month or time.strftime("%Y-%m", time.localtime(now))
    answers = _asked(Client(resolve(runtime_dir)), uplink, name, now)
    if as_json:
        content = json.dumps({key: encode(answer) for key, answer in answers.items()}, indent=2) + "\n"
    else:
        found = _month(answers, name, now)
        content = FORMATS[kind](found)
        for problem in found.problems if kind == "csv" else ():
            # A table has no place for it.
            click.echo(f"not complete: {problem}", err=True)
    if out is None:
        click.echo(content, nl=False)
    else:
        _write(out, content)
        click.echo(out)


def _asked(
    client: Client, uplink: str | None, month: str, now: float
) -> dict[str, Availability | Incidents | Measurements | Volumes]:
    availability = client.ask(calls.AVAILABILITY, OfSpan(span=month))
    beats = next((beats for beats in availability.uplinks.values() if beats), ())
    begin = datetime.fromisoformat(beats[0].start).timestamp() if beats else now - _HOUR
    # Days of 23 and of 25 hours are among them.
    end = min(now, begin + sum(beat.seconds for beat in beats)) if beats else now
    if begin >= now:
        raise click.BadParameter(f"{month} has not begun", param_hint="--month")
    since, until = _moment(begin), _moment(end)
    # Whole hours back from the end, or else the daemon would answer by intervals of another length.
    hours = max(1, -int((begin - end) // _HOUR))
    return {
        "availability": availability if uplink is None else _only(uplink, availability),
        "incidents": client.ask(calls.INCIDENTS, OfIncidents(uplink=uplink, since=since, until=until)),
        "volumes": _volumes(uplink, client.ask(calls.VOLUMES, OfMonth(month=month))),
        "measurements": client.ask(
            calls.MEASURED,
            OfMeasurements(uplink=uplink, since=_moment(int(end) - hours * _HOUR), until=until, points=str(hours)),
        ),
    }


def _only(uplink: str, found: Availability) -> Availability:
    beats = {name: beats for name, beats in found.uplinks.items() if name == uplink}
    return Availability(schema=found.schema, uplinks=beats)


def _volumes(uplink: str | None, found: Volumes) -> Volumes:
    """Return volumes for a report of one uplink: what goes to its provider tells nothing of others, and no clients."""
    if uplink is None:
        return found
    ours = tuple(volume for volume in found.uplinks if volume.uplink == uplink)
    return Volumes(schema=found.schema, uplinks=ours, clients=(), problem=found.problem)


def _moment(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().isoformat(timespec="seconds")


def _month(answers: dict[str, Availability | Incidents | Measurements | Volumes], name: str, now: float) -> Month:
    availability, incidents = answers["availability"], answers["incidents"]
    volumes, measured = answers["volumes"], answers["measurements"]
    assert isinstance(availability, Availability)  # noqa: S101 - for mypy: the keys say so
    assert isinstance(incidents, Incidents)  # noqa: S101 - as above
    assert isinstance(volumes, Volumes)  # noqa: S101 - as above
    assert isinstance(measured, Measurements)  # noqa: S101 - as above
    return Month(
        name=name,
        host=printable(os.uname().nodename),
        now=now,
        uplinks=tuple(
            report(one, beats, incidents.incidents, volumes.uplinks, measured.series, now)
            for one, beats in availability.uplinks.items()
        ),
        clients=volumes.clients,
        problems=tuple(
            dict.fromkeys(filter(None, (measured.problem, volumes.problem, _MORE if incidents.more else "")))
        ),
    )


def _write(path: Path, content: str) -> None:
    try:
        files.put(path, content.encode(), 0o644)
    except FileExistsError as error:
        raise PolywanError(f"{path} is there already, and nothing was written: choose another --out") from error
    except PermissionError as error:
        raise NotPermitted(f"cannot write {path}: permission denied; choose another --out") from error
    except OSError as error:
        raise PolywanError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
