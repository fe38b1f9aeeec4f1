"""`polywan web`: the page, in a process of its own, and the tokens of its visitors."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polywan.cli import options
from polywan.cli.suggesting import Suggesting
from polywan.client import runtime_dir as resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from polywan.web.tokens import Scope, Token

DEFAULT_LISTEN = ("127.0.0.1:8410", "[::1]:8410")
DEFAULT_WEB_STATE = Path("/var/lib/polywan-web")

_state = click.option(
    "--state-dir",
    type=options.path,
    envvar="POLYWAN_WEB_STATE_DIR",
    default=DEFAULT_WEB_STATE,
    show_default=True,
    help="Directory with the tokens.",
)


@click.group(name="web", cls=Suggesting, invoke_without_command=True)
@click.option(
    "--listen",
    "listens",
    metavar="ADDRESS:PORT",
    multiple=True,
    envvar="POLYWAN_WEB_LISTEN",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Address to listen on; several are possible. Beyond loopback it needs TLS and a token.",
)
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    envvar="POLYWAN_WEB_HOSTS",
    help="Name under which the page may be opened, beside localhost and the addresses.",
)
@click.option("--cert", type=options.path, envvar="POLYWAN_WEB_CERT", help="Certificate (PEM), for TLS.")
@click.option("--key", type=options.path, envvar="POLYWAN_WEB_KEY", help="Its key (PEM, without a password).")
@click.option(
    "--tokens-only",
    is_flag=True,
    envvar="POLYWAN_WEB_TOKENS_ONLY",
    help="Ask for a token also on loopback, where any user of this machine may read without one.",
)
@_state
@options.runtime
@click.pass_context
def command(
    ctx: click.Context,
    listens: tuple[str, ...],
    hosts: tuple[str, ...],
    cert: Path | None,
    key: Path | None,
    tokens_only: bool,
    state_dir: Path,
    runtime_dir: Path | None,
) -> None:
    """Serve the page in the foreground; polywan-web.service runs this.

    Started by root, it becomes the user polywan-web.

    \b
    Examples:
      polywan web
      polywan web token add phone
      polywan web --listen 192.0.2.1:8410 --cert web.crt --key web.key
    """
    if ctx.invoked_subcommand is not None:
        return
    from polywan.web.server import run
    from polywan.web.settings import Settings, host, lacking, listen
    from polywan.web.token_files import tokens_of

    problems: list[str] = []
    addresses, names = _all("--listen", listen, listens, problems), _all("--host", host, hosts, problems)
    if (cert is None) != (key is None):
        problems.append("--cert and --key belong together")
    if problems:
        raise click.UsageError("\n".join(problems))
    settings = Settings(
        listen=addresses,
        hosts=frozenset(names),
        runtime_dir=resolve(runtime_dir),
        state_dir=state_dir,
        tls=None if cert is None or key is None else (cert, key),
        tokens_only=tokens_only,
    )
    far = any(not each.address.is_loopback for each in addresses)
    if problems := lacking(settings, has_tokens=far and bool(tokens_of(state_dir))):
        raise click.UsageError("\n".join(problems))
    run(settings)


def _all(option: str, read: Callable[[str], Any], texts: tuple[str, ...], problems: list[str]) -> tuple[Any, ...]:
    found = []
    for text in texts:
        try:
            found.append(read(text))
        except ValueError as error:
            problems.append(f"{option}: {error}")
    return tuple(found)


@command.group(name="token", cls=Suggesting, short_help="Make, list and revoke tokens of visitors.")
def token() -> None:
    """Make, list and revoke the tokens by which visitors of the page show what they may do; needs root.

    \b
    Examples:
      polywan web token add phone
      polywan web token add laptop --scope act --expires 90d
      polywan web token list
      polywan web token revoke phone
    """


@token.command(name="add", short_help="Make a token and print it, once.")
@click.argument("name")
@click.option("--scope", type=click.Choice(["read", "act"]), default="read", show_default=True, help="What it allows.")
@click.option("--expires", metavar="TIME", help="How long it is good, such as 90d.  [default: until it is revoked]")
@options.as_json
@_state
def add(name: str, scope: str, expires: str | None, as_json: bool, state_dir: Path) -> None:
    """Make a token for visitor NAME, and print it: it is shown only this once.

    \b
    Examples:
      polywan web token add phone
      polywan web token add laptop --scope act --expires 90d
    """
    from polywan.core.status.times import iso
    from polywan.web.rights import page_account
    from polywan.web.token_files import changing
    from polywan.web.tokens import MOST_TOKENS, TOKEN_BYTES, TOKEN_NAME, TOKEN_PREFIX, Token, digest_of

    if TOKEN_NAME.fullmatch(name) is None:
        raise click.UsageError(f"NAME: expected up to 40 letters, digits, dots, hyphens or underscores, got {name!r}")
    now = time.time()
    until = None if expires is None else now + _seconds(expires)
    text = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    account = page_account()
    with changing(state_dir, None if account is None else (account.pw_uid, account.pw_gid)) as tokens:
        tokens[:] = [one for one in tokens if one.is_good(now)]
        if any(one.name == name for one in tokens):
            raise click.UsageError(f"there is a token {name} already: polywan web token revoke {name}")
        if len(tokens) >= MOST_TOKENS:
            raise click.UsageError(f"there are {MOST_TOKENS} tokens, no more are possible: revoke some")
        wanted: Scope = "act" if scope == "act" else "read"
        made = Token(name=name, digest=digest_of(text), scope=wanted, created=now, expires=until)
        tokens.append(made)
    if as_json:
        click.echo(json.dumps({**_document(made, {}), "token": text}, indent=2))
        return
    click.echo(text)
    last = "until it is revoked" if until is None else f"until {iso(until)}"
    may = "read and act" if scope == "act" else "read"
    click.echo(f"token {name} may {may} {last}; it is not shown again", err=True)


def _seconds(text: str) -> float:
    from pydantic_core import PydanticCustomError

    from polywan.config.kinds.scalars import Duration

    try:
        return float(Duration(1.0, 36500 * 86400.0).parse(text))
    except PydanticCustomError as error:
        raise click.UsageError(f"--expires: {error.context['message'] if error.context else error}") from error


@token.command(name="list", short_help="List the tokens.")
@options.as_json
@_state
def list_(as_json: bool, state_dir: Path) -> None:
    """List the tokens: what they allow, until when, and when each was used last.

    \b
    Examples:
      polywan web token list
      polywan web token list --json
    """
    from polywan.web.token_files import tokens_of, uses_of

    uses = uses_of(state_dir)
    found = [_document(one, uses) for one in tokens_of(state_dir)]
    if as_json:
        click.echo(json.dumps({"tokens": found}, indent=2))
        return
    rows = [["token", "scope", "made", "expires", "last used"]]
    rows += [[str(text or "never")[:19] for text in one.values()] for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _document(one: Token, uses: Any) -> dict[str, str | None]:
    from polywan.core.status.times import iso

    used = uses.get(one.digest)
    return {
        "name": one.name,
        "scope": one.scope,
        "created": iso(one.created),
        "expires": None if one.expires is None else iso(one.expires),
        "last_used": None if used is None else iso(used),
    }


@token.command(name="revoke", short_help="Make a token good for nothing.")
@click.argument("name")
@_state
def revoke(name: str, state_dir: Path) -> None:
    """Revoke the token NAME: at once it is good for nothing, and what it follows ends.

    \b
    Examples:
      polywan web token revoke phone
    """
    from polywan.config.faults import absent
    from polywan.web.token_files import changing

    with changing(state_dir, None) as tokens:
        names = [one.name for one in tokens]
        if name not in names:
            raise click.UsageError(absent("token", name, names))
        del tokens[names.index(name)]
    click.echo(f"token {name} is revoked")
