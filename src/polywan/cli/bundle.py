"""`polywan bundle`: one file for a bug report."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from polywan import files
from polywan.cli import options
from polywan.cli.units import size
from polywan.core.errors import NotPermitted, PolywanError
from polywan.core.masking.listing import different
from polywan.core.words import counted, printable

if TYPE_CHECKING:
    from polywan.bundle.assemble import Bundle

_WORD: Final = re.compile(r"[\w-]+")


@click.command(name="bundle")
@click.option("--out", "-o", type=options.path, help="The file to write.  [default: polywan-bundle-TIME.tar.gz, here]")
@options.config
@options.runtime
@options.state
@options.as_json
def command(out: Path | None, config_path: Path, runtime_dir: Path | None, state_dir: Path, as_json: bool) -> None:
    """Write one file that shows others this machine: for a bug report, or to ask for help.

    It has the configuration, status, plan, journal, doctor's findings, versions, the kernel's state and the log, as
    text. Secrets, public addresses, hardware addresses and names of people are masked, the same one in the same way
    everywhere; masked.txt lists what, and where. Look at the file before you give it away.

    Works without a daemon and without root; then the file says what is missing. Changes nothing, takes up to 15 s, and
    never replaces a file.

    \b
    Examples:
      sudo polywan bundle
      tar xzOf polywan-bundle-*.tar.gz | less
      polywan bundle --out /tmp/bundle.tar.gz
    """
    from polywan.bundle.assemble import archive, gather
    from polywan.doctor.reading.collect import Places

    now = time.time()
    path = out or Path(time.strftime("polywan-bundle-%Y%m%d-%H%M%S.tar.gz", time.localtime(now)))
    if os.path.lexists(path):
        raise PolywanError(f"{path} is there already, and nothing was written: choose another --out")
    places = Places(config=config_path, state_dir=state_dir, runtime_dir=runtime_dir)
    bundle = asyncio.run(gather(places, printable(os.uname().nodename), _words(), _progress()))
    content = archive(bundle.files, now)
    _write(path, content)
    if as_json:
        facts = {"path": str(path), "bytes": len(content), "files": list(bundle.files)}
        facts |= {"masked": different(bundle.masked), "missing": dict(bundle.missing)}
        click.echo(json.dumps(facts, indent=2))
    else:
        _tell(path, len(content), bundle)


def _words() -> frozenset[str]:
    """Return the words of the configuration's vocabulary: where the machine is called like one of them, it stays."""
    from polywan.config.reference.json_schema import json_schema

    return frozenset(word.lower() for word in _WORD.findall(json.dumps(json_schema())))


def _progress() -> Callable[[int, int], None]:
    if not sys.stderr.isatty():
        return lambda *_: None

    def show(done: int, wanted: int) -> None:
        click.echo(f"\rreading: {done} of {wanted} parts", nl=done == wanted, err=True)

    return show


def _write(path: Path, content: bytes) -> None:
    try:
        files.put(path, content)
    except PermissionError as error:
        raise NotPermitted(f"cannot write {path}: permission denied; choose another --out") from error
    except FileExistsError as error:
        raise PolywanError(f"{path} appeared in the meantime, and nothing was written") from error
    except OSError as error:
        raise PolywanError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def _tell(path: Path, length: int, bundle: Bundle) -> None:
    click.echo(path)
    click.echo(f"{counted(len(bundle.files), 'file')}, {size(length)}", err=True)
    for name, reason in bundle.missing.items():
        click.echo(f"not in it: {name}: {reason}", err=True)
    masked = ", ".join(f"{kind}: {number}" for kind, number in different(bundle.masked).items())
    click.echo(f"masked: {masked or 'nothing'}", err=True)
    click.echo(f"look at it before you give it away: tar xzOf {path} | less", err=True)
