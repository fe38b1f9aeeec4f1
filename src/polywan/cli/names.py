"""Host names where an address is asked for: looked up once, here, and told."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address

import click

_NAMED = re.compile(r"(?P<host>[^:\[\]/%]*[A-Za-z][^:\[\]/%]*?)(?P<port>:[0-9]+)?")


def resolved(target: str, source: str) -> tuple[str, str]:
    """Return DST with the address of the host that it names, and what to tell of that; as it is when it names none.

    Args:
        target: DST or DST:PORT.
        source: SRC; its family is the one that counts, as the two have to be of one.

    Raises:
        click.UsageError: the name has no such address.
    """
    found = _NAMED.fullmatch(target)
    if found is None:
        return target, ""
    host = found["host"]
    family = _family(source)
    try:
        answers = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid name"
        raise click.UsageError(f"destination: {host!r} cannot be looked up: {reason}") from error
    addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    address = addresses[0]
    more = f", the first of its {len(addresses)} addresses" if len(addresses) > 1 else ""
    written = f"[{address}]" if ":" in address and found["port"] else address
    return f"{written}{found['port'] or ''}", f"{host} resolves to {address}{more}"


def _family(source: str) -> socket.AddressFamily:
    try:
        return socket.AF_INET6 if ip_address(source).version == 6 else socket.AF_INET
    except ValueError:
        return socket.AF_UNSPEC
