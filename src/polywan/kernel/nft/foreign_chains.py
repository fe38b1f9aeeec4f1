"""Base chains of other programs at the hooks forward and ingress, from netlink (linux/netfilter/nf_tables.h)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.model import TABLE
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.core.world.foreign_chains import ForwardChain, IngressChain
from polywan.kernel.netlink.lending import netfilter
from polywan.kernel.netlink.socket import Message, attributes, text, walk

_ANY_FAMILY: Final = bytes(4)
_GET_CHAIN: Final = 10 << 8 | 4
_FAMILIES: Final = {1: "inet", 2: "ip", 10: "ip6"}
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
OURS: Final = (TABLE, KEEP_TABLE, FAST_TABLE)
"""Our own tables."""

_HOOK_NUMBER: Final = 1
_FORWARD: Final = (2).to_bytes(4, "big")
_INGRESS: Final = {(5, 0): "netdev", (1, 5): "inet"}
"""Families of chains at the hook ingress, by their number and the hook's in it."""
_HOOK_DEVICE, _HOOK_DEVICES = 3, 4
_DEVICE_NAME, _DEVICE_PREFIX = 1, 2

_AFTER_ROUTING: Final = tuple(hook.to_bytes(4, "big") for hook in (1, 2, 4))
_KNOWN: Final = tuple(bytes((family,)) for family in _FAMILIES)
_DROP: Final = bytes(4)


def read() -> list[bytes]:
    """Return a message for each chain, ours among them; none where the kernel does not tell."""
    with suppress(KernelError), netfilter() as netlink:
        return [message.body for message in netlink.snapshot(_GET_CHAIN, _ANY_FAMILY)]
    return []


def after_routing(legacy: Path = Path("/proc/net/ip_tables_names")) -> bool:
    """True when others have chains at the hooks input, forward or postrouting, or nobody can tell.

    Args:
        legacy: where the kernel names the tables of the older iptables, to root alone.
    """
    try:
        if legacy.exists() and legacy.read_text().strip():
            return True
        with netfilter() as netlink:
            return any(map(_after_routing, netlink.snapshot(_GET_CHAIN, _ANY_FAMILY)))
    except (OSError, KernelError):
        return True


def _after_routing(message: Message) -> bool:
    about = attributes(message.body, 4)
    number = attributes(about.get(_HOOK, b"")).get(_HOOK_NUMBER)
    if number not in _AFTER_ROUTING or message.body[:1] not in _KNOWN:
        return False
    return f"{_FAMILIES[message.body[0]]} {text(about.get(_TABLE, b''))}" not in OURS


def dropping(bodies: Iterable[bytes]) -> tuple[ForwardChain, ...]:
    """Return the chains of others at the hook forward whose policy is drop; whatever makes no sense is left out."""
    found = set()
    for body in bodies:
        about = attributes(body, 4)
        hook = attributes(about.get(_HOOK, b""))
        if hook.get(_HOOK_NUMBER) != _FORWARD or about.get(_POLICY) != _DROP or body[0] not in _FAMILIES:
            continue
        chain = ForwardChain(_FAMILIES[body[0]], text(about.get(_TABLE, b"")), text(about.get(_NAME, b"")))
        if f"{chain.family} {chain.table}" not in OURS:
            found.add(chain)
    return tuple(sorted(found, key=str))


def at_ingress(bodies: Iterable[bytes]) -> tuple[IngressChain, ...]:
    """Return the chains of others at the hook ingress of devices; whatever makes no sense is left out."""
    found = set()
    for body in bodies:
        about = attributes(body, 4)
        hook = attributes(about.get(_HOOK, b""))
        family = _INGRESS.get((body[0], int.from_bytes(hook.get(_HOOK_NUMBER, b"\xff"), "big"))) if body else None
        if family is None or not (devices := tuple(dict.fromkeys(_devices(hook)))):
            continue
        chain = IngressChain(family, text(about.get(_TABLE, b"")), text(about.get(_NAME, b"")), devices)
        if f"{family} {chain.table}" not in OURS:
            found.add(chain)
    return tuple(sorted(found, key=str))


def _devices(hook: dict[int, bytes]) -> Iterator[str]:
    """Yield the devices of a hook; the kernel names one of them, or in newer versions all."""
    if name := text(hook.get(_HOOK_DEVICE, b"")):
        yield name
    listed = hook.get(_HOOK_DEVICES, b"")
    for kind, start, end in walk(listed, 0, len(listed)):
        if kind in {_DEVICE_NAME, _DEVICE_PREFIX} and (name := text(listed[start:end])):
            yield f"{name}*" if kind == _DEVICE_PREFIX else name
