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
        static: the files of the page.
    """

    listen: tuple[Listen, ...]
    hosts: frozenset[str]
    runtime_dir: Path
    static: Path = STATIC


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
