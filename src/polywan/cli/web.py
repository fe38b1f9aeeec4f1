"""`polywan web`: the page, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import click

from polywan.cli import options
from polywan.client import runtime_dir as resolve

DEFAULT_LISTEN = ("127.0.0.1:8410", "[::1]:8410")


@click.command(name="web")
@click.option(
    "--listen",
    "listens",
    metavar="ADDRESS:PORT",
    multiple=True,
    envvar="POLYWAN_WEB_LISTEN",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Address to listen on; several are possible.",
)
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    envvar="POLYWAN_WEB_HOSTS",
    help="Name under which the page may be opened, beside localhost and the addresses.",
)
@options.runtime
def command(listens: tuple[str, ...], hosts: tuple[str, ...], runtime_dir: Path | None) -> None:
    """Serve the page in the foreground; polywan-web.service runs this.

    \b
    Examples:
      polywan web
      polywan web --listen 127.0.0.1:9000
    """
    from polywan.web.server import run
    from polywan.web.settings import Settings, host, listen

    problems, addresses, names = [], [], []
    for text in listens:
        try:
            addresses.append(listen(text))
        except ValueError as error:
            problems.append(f"--listen: {error}")
    for text in hosts:
        try:
            names.append(host(text))
        except ValueError as error:
            problems.append(f"--host: {error}")
    if problems:
        raise click.UsageError("\n".join(problems))
    run(Settings(listen=tuple(addresses), hosts=frozenset(names), runtime_dir=resolve(runtime_dir)))
