"""`polywan show`: the rules, routes and configuration in force."""

from __future__ import annotations

import json
from pathlib import Path

import click

from polywan.api import calls
from polywan.api.requests import What
from polywan.cli import options
from polywan.client import Client
from polywan.client import runtime_dir as resolve


@click.command(name="show")
@click.argument("what", type=click.Choice(["nft", "routes", "rules", "config", "dnsmasq", "openapi"]))
@options.runtime
@options.as_json
def command(what: str, runtime_dir: Path | None, as_json: bool) -> None:
    """Show what the daemon keeps in the kernel, in the syntax of nft(8) and ip(8), or the configuration in force.

    `dnsmasq` prints lines for dnsmasq's configuration that make it fill the sets of rules with `domains`.
    `openapi` prints the calls of the control socket as an OpenAPI 3.1 document.

    \b
    Examples:
      polywan show nft
      polywan show rules
      polywan show dnsmasq > /etc/dnsmasq.d/polywan.conf
      polywan show openapi > polywan-openapi.json
    """
    text = Client(resolve(runtime_dir)).ask(calls.SHOW, What(what=what)).text
    click.echo(json.dumps({"what": what, "lines": text.splitlines()}, indent=2) if as_json else text, nl=as_json)
