"""What `polywan web` is told: where it listens, under which names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from polywan.web.assets import STATIC
from polywan.web.hosts import Address, host_name

PORT: Final = 8410

_LISTEN: Final = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Listen:
    """An address and a port to listen on."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the page is served.

    Attributes:
        listen: where.
        hosts: names under which it may be asked for, as `hosts.host_name` returns them.
        runtime_dir: of the daemon.
        state_dir: with the tokens.
        tls: files of a certificate, with those that lead to its authority, and of its key; None without.
        tokens_only: ask visitors of this machine for a token, too.
        static: the files of the page.
    """

    listen: tuple[Listen, ...]
    hosts: frozenset[str]
    runtime_dir: Path
    state_dir: Path
    tls: tuple[Path, Path] | None = None
    tokens_only: bool = False
    static: Path = STATIC


SELF_MADE: Final = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj /CN={name} "
    "-addext subjectAltName={kind}:{name} -keyout web.key -out web.crt"
)
"""Makes a certificate that nobody else vouches for."""


def lacking(settings: Settings, *, has_tokens: bool) -> list[str]:
    """Return what is missing for the page to be served as it is wanted, for people."""
    far = [each for each in settings.listen if not each.address.is_loopback]
    if not far:
        return []
    name = next(iter(sorted(settings.hosts)), str(far[0].address))
    found = []
    if settings.tls is None:
        made = SELF_MADE.format(name=name, kind="DNS" if settings.hosts else "IP")
        found.append(f"others can reach {far[0]}, so it needs TLS: give --cert and --key; to make them: {made}")
    if not has_tokens:
        found.append(f"others can reach {far[0]}, so it needs a token: polywan web token add NAME")
    return found


def listen(text: str) -> Listen:
    """Return an address such as 127.0.0.1:8410 or [::1]:8410; the port may be missing, and the brackets with it.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    found = _LISTEN.fullmatch(text)
    try:
        if found is None:
            return Listen(ip_address(text), PORT)
        address, port = ip_address(found["six"] or found["four"]), int(found["port"] or PORT)
        if (address.version == 6) == (found["six"] is not None) and port < 65536:
            return Listen(address, port)
    except ValueError:
        pass
    raise ValueError(f"expected an address such as 127.0.0.1:{PORT} or [::1]:{PORT}, got {text!r}")


def host(text: str) -> str:
    """Return a name under which the page may be asked for.

    Raises:
        ValueError: it is none; the text says what was expected.
    """
    name = host_name(text)
    if name is None:
        raise ValueError(f"expected a name such as gateway.example.org, without a port, got {text!r}")
    return name
