"""Which resolvers this box uses, and by which link each was named, from the texts of files."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from polywan.core.net import IPAddress
from polywan.doctor.facts.line import Resolver

MOST: Final = 3
"""Resolvers that the C library asks (resolv.conf(5))."""


def nameservers(text: str) -> tuple[IPAddress, ...]:
    """Return the servers of a resolv.conf(5)."""
    lines = (line.split() for line in text.splitlines())
    return addresses(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


def value_of(text: str, key: str) -> tuple[IPAddress, ...]:
    """Return the addresses of a line ``KEY=address address``, as systemd's programs keep them for each link."""
    lines = (line.partition("=") for line in text.splitlines())
    return addresses(word for name, _, value in lines if name == key for word in value.split())


def addresses(words: Iterable[str]) -> tuple[IPAddress, ...]:
    """Return what is an address; of a link-local one, and of one with a port or a name, only the address."""
    found: list[IPAddress] = []
    for word in words:
        try:
            found.append(ip_address(word.partition("#")[0].partition("%")[0]))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))


def owned(used: Iterable[IPAddress], named: Iterable[Resolver]) -> tuple[Resolver, ...]:
    """Return the resolvers in use that exactly one link's provider has named.

    What several have named is a public one as a rule, and a link-local address belongs to its link anyway.
    """
    by_address: dict[IPAddress, dict[str, Resolver]] = {}
    for resolver in named:
        by_address.setdefault(resolver.address, {}).setdefault(resolver.device, resolver)
    found: list[Resolver] = []
    for address in list(dict.fromkeys(used))[:MOST]:
        links = by_address.get(address, {})
        if len(links) == 1 and not address.is_link_local and not address.is_loopback:
            found += links.values()
    return tuple(found)
