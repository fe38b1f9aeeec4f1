"""Ask the DNS for the addresses of a name and their time to live: the system's servers, by dnspython."""

from __future__ import annotations

import asyncio
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from polywan.core.world.domains import Reply

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as DnsResolver
    from dns.resolver import Answer

LIFETIME: Final = 5.0
"""Seconds for a question, all servers and repetitions together (resolv.conf(5) has 5 s for each)."""

RESOLV_CONF: Final = "/etc/resolv.conf"


class Resolver(Protocol):
    """Finds the addresses of names."""

    async def ask(self, name: str) -> Reply:
        """Return the addresses of both families, or why there are none; never raises, never takes minutes."""
        ...


class SystemResolver:
    """Asks the servers of resolv.conf(5); the file is read for each question, as DHCP clients rewrite it.

    The C library's getaddrinfo(3) would tell no time to live.
    """

    def __init__(self, settings: str = RESOLV_CONF, port: int = 53) -> None:
        self._settings = settings
        self._port = port

    async def ask(self, name: str) -> Reply:
        """Return the addresses of both families, or why there are none."""
        # 15 MB that only those need whose rules name domains, and a tenth of a second that must not stop the loop.
        await asyncio.to_thread(import_module, "dns.asyncresolver")
        from dns.asyncresolver import Resolver as DnsResolver
        from dns.resolver import NoResolverConfiguration

        try:
            resolver = DnsResolver(self._settings)
            resolver.port = self._port
        except (NoResolverConfiguration, OSError, ValueError):
            return Reply(problem=f"{self._settings} names no resolver")
        replies = await asyncio.gather(*(self._one(resolver, name, kind) for kind in ("A", "AAAA")))
        addresses = tuple(address for reply in replies for address in reply.addresses)
        problems = tuple(dict.fromkeys(reply.problem for reply in replies if reply.problem))
        ttl = min((reply.ttl for reply in replies if reply.addresses), default=0.0)
        return Reply(addresses=addresses, ttl=ttl, problem=problems[0] if problems else "")

    async def _one(self, resolver: DnsResolver, name: str, kind: str) -> Reply:
        """Ask for one family; that a name has no address of it is no problem."""
        from dns.exception import DNSException, Timeout
        from dns.resolver import NXDOMAIN

        try:
            # A name without dots means one of the site's, as for every program.
            answer = await resolver.resolve(
                name if "." not in name else f"{name}.",
                kind,
                lifetime=LIFETIME,
                raise_on_no_answer=False,
                search="." not in name,
            )
            return _reply(answer)
        except NXDOMAIN:
            return Reply(problem="no such name (NXDOMAIN)")
        except Timeout:
            return Reply(problem="no resolver answered in time")
        except (DNSException, OSError) as error:
            return Reply(problem=str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - servers send anything, and a parser's bug must not end the daemon
            return Reply(problem=f"invalid answer: {type(error).__name__}")


def _reply(answer: Answer) -> Reply:
    if answer.rrset is None:
        return Reply()
    addresses = tuple(dict.fromkeys(ip_address(record.address) for record in answer.rrset))
    return Reply(addresses=addresses, ttl=float(answer.chaining_result.minimum_ttl))
