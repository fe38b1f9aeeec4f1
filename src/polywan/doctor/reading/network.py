"""Read what the kernel knows, and its answers to questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.net import FAMILIES
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.world.observed import Observed
from polywan.doctor.box import HalfOpen
from polywan.doctor.facts.routes import TableRoute, parse
from polywan.kernel import sysctl
from polywan.kernel.linux import LinuxKernel
from polywan.kernel.programs import listing

_LINKS: Final = ("arp_ignore", "arp_announce", "ignore_routes_with_linkdown")
_PER_DEVICE6: Final = ("accept_ra", "ignore_routes_with_linkdown")
_PER_DEVICE: Final = ("rp_filter", "src_valid_mark", "accept_local", "forwarding", *_LINKS)
_SETTINGS: Final = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv6/fib_multipath_hash_policy",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_buckets",
    "net/netfilter/nf_conntrack_events",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
)

_MOST_EXAMPLES: Final = 3


@contextmanager
def _kernel() -> Iterator[LinuxKernel]:
    kernel = LinuxKernel(trials=False)
    try:
        yield kernel
    finally:
        kernel.close()


def observed() -> Observed:
    """Return links, addresses, defaults and policy rules of others.

    Raises:
        KernelError: the kernel does not show them.
    """
    with _kernel() as kernel:
        return kernel.observe()


def routes() -> tuple[TableRoute, ...]:
    """Return the default routes and the connected ones of every table; errors as `programs.output`."""
    found: list[TableRoute] = []
    for family in FAMILIES:
        start = ["ip", "-json", "-details", f"-{family}", "route", "show", "table", "all"]
        found += parse(listing([*start, "default"], "iproute2"), family)
        found += parse(listing([*start, "scope", "link"], "iproute2"), family, "link")
    return tuple(dict.fromkeys(found))


def settings(observed: Observed) -> Mapping[str, str]:
    """Return the settings below /proc/sys that checks look at."""
    devices = ("all", "default", *observed.links)
    paths = [f"net/ipv4/conf/{device}/{name}" for device in devices for name in _PER_DEVICE]
    paths += [f"net/ipv6/conf/{device}/{name}" for device in devices for name in _PER_DEVICE6]
    known = ((path, sysctl.read(path)) for path in (*_SETTINGS, *paths))
    return {path: value for path, value in known if value is not None}


def counters(folder: Path = Path("/proc/net")) -> Mapping[str, int]:
    """Return the network's counters by the names that nstat(8) has for them."""
    found: dict[str, int] = {}
    for name in ("netstat", "snmp"):
        try:
            lines = (folder / name).read_text("ascii", "replace").splitlines()
        except OSError:
            continue
        for heading, values in zip(lines[::2], lines[1::2], strict=False):
            group, _, names = heading.partition(":")
            numbers = values.partition(":")[2].split()
            found.update(
                {f"{group}{key}": int(n) for key, n in zip(names.split(), numbers, strict=False) if _number(n)}
            )
    return found


def _number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def half_open() -> tuple[HalfOpen, ...]:
    """Return the connections in SYN_RECV by their whole mark.

    Raises:
        KernelError: the kernel does not show connections.
    """
    count: Counter[int] = Counter()
    example: dict[int, str] = {}
    with _kernel() as kernel:
        for flow in kernel.flows(0xFFFF_FFFF):
            if flow.state == "SYN_RECV":
                count[flow.mark] += 1
                example.setdefault(flow.mark, f"{flow.client} to {flow.destination}:{flow.port}")
    return tuple(HalfOpen(mark, n, example[mark]) for mark, n in sorted(count.items()))


def answers(questions: Iterable[RouteQuery]) -> Mapping[RouteQuery, RouteAnswer]:
    """Return the kernel's answers; a question that makes no sense to it has none."""
    found: dict[RouteQuery, RouteAnswer] = {}
    with _kernel() as kernel:
        for query in dict.fromkeys(questions):
            try:
                found[query] = kernel.ask(query)
            except KernelError:
                continue
    return found
