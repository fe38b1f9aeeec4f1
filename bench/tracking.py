"""Connection tracking: `polywan flows` with tens of thousands of connections, and freeing thousands of idle ones.

Both have real packets through the real daemon. Connections to list are UDP, each asked and answered once, from many
clients in both families. Idle ones are TCP, all on one uplink, which loses its carrier.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, Final, TypeAlias

from report import cell, summary, table
from world import configuration, installed, until_up

from polywan.core.net import Family, IPAddress
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab, build
from polywan.lab.sandbox import LabError
from polywan.lab.servers import SOCKET_FAMILY
from polywan.lab.topology import LAN_CLIENT, SERVERS

Progress: TypeAlias = Callable[[str], None]

UPLINKS: Final = 3
ENTRIES: Final = 60_000
IDLE: Final = 10_000
RUNS: Final = 3
ORDERS: Final = ("none", "bytes", "age", "client", "uplink")
"""Values of `--sort`; without one, so many connections come in the kernel's order."""

FORMS: Final = {"text": (), "json": ("--json",)}

_CLIENTS, _PORTS = 100, 10
"""Clients in each family, and ports of each; the rest of the number is in servers and their ports."""

_FIRST_PORT: Final = 9000
_REMEMBERED: Final = 600
"""Seconds for which the router keeps a connection that is quiet."""

_NOTICED: Final = 15.0
_FREED: Final = 10.0
_SPARE: Final = 200
"""Descriptors that this process needs beside those of idle connections."""

_HOME: Final = Path("/run/polywan-bench")
_FIRST_CARRIES_ALL: Final = '\n[policies.default]\ntiers = [["isp1"], ["isp2"], ["isp3"]]\n'


def measure(*, quick: bool, note: Progress) -> dict[str, Any]:
    """Measure; `quick` lists and frees few connections once.

    Raises:
        LabError: the lab could not be built, connections are missing, or the daemon never noticed.
    """
    with build(UPLINKS) as lab:
        listing = _listing(lab, 2000 if quick else ENTRIES, 1 if quick else RUNS, note)
    freed = []
    for number in range(1 if quick else RUNS):
        with build(UPLINKS) as lab:
            note(f"idle connections freed, run {number + 1}")
            freed.append(_freeing(lab, 100 if quick else IDLE))
    return {"flows": listing, "freeing": _sum_up(freed)}


@contextmanager
def _running(lab: Lab, name: str, more: str = "") -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(lab.router, configuration(UPLINKS) + more, _HOME / name)
    daemon.start()
    try:
        until_up(daemon, UPLINKS)
        yield daemon
    finally:
        daemon.down()
        daemon.stop()


def _listing(lab: Lab, entries: int, runs: int, note: Progress) -> dict[str, Any]:
    lab.router.sysctl({"netfilter/nf_conntrack_udp_timeout": _REMEMBERED})
    with _running(lab, "tracking") as daemon:
        note(f"{entries} connections begin")
        made = make(lab, entries)
        times: dict[str, dict[str, list[float]]] = {form: {order: [] for order in ORDERS} for form in FORMS}
        for number in range(runs):
            note(f"flows, run {number + 1} of {runs}")
            for form in FORMS:
                for order in ORDERS:
                    times[form][order].append(_command(daemon, order, form, made))
        found: dict[str, Any] = {
            form: {order: summary(each) for order, each in orders.items()} for form, orders in times.items()
        }
        return {"entries": made, **found, "troubles": daemon.troubles}


def make(lab: Lab, entries: int) -> int:
    """Let about so many UDP connections through the router, each asked and answered once; return how many there are.

    Raises:
        LabError: a datagram was lost.
    """
    made = 0
    for family in lab.topology.families:
        each = entries // len(lab.topology.families)
        with ExitStack() as stack:
            servers = _servers(lab, family, each // (_CLIENTS * _PORTS), stack)
            for number, client in enumerate(_clients(lab, family, stack)):
                made += _talk(client, servers, number)
    return made


def _servers(lab: Lab, family: Family, number: int, stack: ExitStack) -> list[socket.socket]:
    ends: list[tuple[IPAddress, int]] = [
        (SERVERS[family][place % len(SERVERS[family])], _FIRST_PORT + place) for place in range(max(1, number))
    ]
    return [_bound(lab.server.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM), *end, stack) for end in ends]


def _clients(lab: Lab, family: Family, stack: ExitStack) -> list[socket.socket]:
    own = LAN_CLIENT[family]
    addresses = [ip_interface(f"{own.network[100 + n]}/{own.network.prefixlen}") for n in range(_CLIENTS)]
    lab.client.ip(f"address add {a} dev eth0{' nodad' if family is Family.V6 else ''}" for a in addresses)
    return [
        _bound(lab.client.socket(SOCKET_FAMILY[family], socket.SOCK_DGRAM), a.ip, _FIRST_PORT + n, stack)
        for a in addresses
        for n in range(_PORTS)
    ]


def _bound(sock: socket.socket, address: IPAddress, port: int, stack: ExitStack) -> socket.socket:
    stack.enter_context(sock)
    sock.settimeout(5.0)
    sock.bind((str(address), port))
    return sock


def _talk(client: socket.socket, servers: Sequence[socket.socket], number: int) -> int:
    """Ask every server once and let it answer, with as many bytes as tells these connections from others."""
    try:
        for place, server in enumerate(servers):
            client.sendto(bytes(1 + (7 * number + place) % 1000), server.getsockname()[:2])
            _, seen = server.recvfrom(2048)
            server.sendto(bytes(1 + (13 * number + place) % 1400), seen)
            client.recv(2048)
    except OSError as error:
        raise LabError(f"a datagram was lost: {error}") from error
    return len(servers)


def _command(daemon: DaemonProcess, order: str, form: str, least: int) -> float:
    """Return the milliseconds that a whole process of `polywan flows` takes, with its output in a file."""
    argv = [*installed(), "flows", "--runtime-dir", str(daemon.runtime), *FORMS[form]]
    argv += [] if order == "none" else ["--sort", order]
    out = _HOME / "flows.out"
    with out.open("w", encoding="utf-8") as stdout:
        began = time.perf_counter()
        done = subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
        taken = 1000 * (time.perf_counter() - began)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    found = listed(out.read_text(encoding="utf-8"), form)
    out.unlink()
    if found < least:
        raise LabError(f"{' '.join(argv)}: {found} connections, expected {least}")
    return taken


def listed(text: str, form: str) -> int:
    """Return how many connections `polywan flows` has printed."""
    return text.count('{"family": ') if form == "json" else text.count("\n") - 1


def _freeing(lab: Lab, wanted: int) -> dict[str, Any]:
    """Take the carrier from under idle TCP connections; return when after the verdict they were free, in ms."""
    number = min(wanted, _descriptors(wanted + _SPARE) - _SPARE)
    if number < 1:
        raise LabError("too few descriptors for idle connections (ulimit -Hn)")
    with _running(lab, "freeing", _FIRST_CARRIES_ALL) as daemon, _idle(lab, number) as clients:
        mark = len(daemon.log)
        lab.cut(1)
        ends = _ends(clients, _NOTICED + _FREED)
        verdict = daemon.wait_log(lambda text: "isp1 is" in text and "down" in text, _NOTICED, mark)
        if verdict is None:
            raise LabError("the daemon never noticed")
        return {"connections": number, "reset": len(ends), **after(verdict.at, ends), "troubles": daemon.troubles}


def after(verdict: float, ends: Sequence[float]) -> dict[str, float]:
    """Return when the first, the middle and the last connection was free, in milliseconds after the verdict."""
    places = {"first_ms": 0, "median_ms": len(ends) // 2, "last_ms": -1}
    return {key: round(max(0.0, 1000 * (sorted(ends)[place] - verdict)), 2) for key, place in places.items()}


def _descriptors(wanted: int) -> int:
    """Raise the number of descriptors that this process may have, as far as it may; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


@contextmanager
def _idle(lab: Lab, number: int) -> Iterator[dict[int, socket.socket]]:
    """Open TCP connections that say nothing, and close them afterwards; the other ends are in a process of their own.

    Raises:
        LabError: one could not be opened.
    """
    address = SERVERS[Family.V4][0]
    with ExitStack() as stack:
        listener = stack.enter_context(lab.server.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((str(address), _FIRST_PORT))
        listener.listen(1024)
        child = os.fork()
        if not child:
            _accept(listener, number)
        stack.callback(os.waitpid, child, 0)
        stack.callback(os.kill, child, signal.SIGKILL)
        clients: dict[int, socket.socket] = {}
        try:
            for _ in range(number):
                sock = stack.enter_context(lab.client.socket(socket.AF_INET, socket.SOCK_STREAM))
                sock.settimeout(5.0)
                sock.connect((str(address), _FIRST_PORT))
                clients[sock.fileno()] = sock
        except OSError as error:
            raise LabError(f"connection {len(clients) + 1}: {error}") from error
        yield clients


def _accept(listener: socket.socket, number: int) -> None:
    """Hold the other ends until this process is ended; whatever happens, nothing of the parent's is undone here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        listener.settimeout(None)
        held = [listener.accept() for _ in range(number)]
        while held:
            signal.pause()
    finally:
        os._exit(0)


def _ends(clients: Mapping[int, socket.socket], patience: float) -> list[float]:
    """Wait until every connection is reset; return when each one was.

    Raises:
        LabError: one ended in another way, or not in time.
    """
    ends: list[float] = []
    deadline = time.monotonic() + patience
    with select.epoll(len(clients)) as poll:
        for descriptor in clients:
            poll.register(descriptor, select.EPOLLIN)
        while len(ends) < len(clients) and (remaining := deadline - time.monotonic()) > 0:
            met = poll.poll(remaining)
            now = time.monotonic()
            for descriptor, _ in met:
                poll.unregister(descriptor)
                if clients[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != errno.ECONNRESET:
                    raise LabError("a connection has ended without a reset")
                ends.append(now)
    if len(ends) < len(clients):
        raise LabError(f"{len(clients) - len(ends)} of {len(clients)} connections were not reset")
    return ends


def _sum_up(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    times = {key: summary([run[key] for run in runs]) for key in ("first_ms", "median_ms", "last_ms")}
    return {**times, "connections": min(run["connections"] for run in runs), "runs": list(runs)}


def markdown(result: Mapping[str, Any]) -> str:
    """Return the section of the report."""
    flows, freeing = result["flows"], result["freeing"]
    lines = ["### Connection tracking", ""]
    lines += [f"`polywan flows` with {flows['entries']} connections, whole process, ms:", ""]
    rows = [[order, *(cell(flows[form][order], 0) for form in FORMS)] for order in ORDERS]
    lines += [*table(["order", *FORMS], rows), ""]
    lines += [f"{freeing['connections']} idle TCP connections on an uplink that loses its carrier, IPv4.", ""]
    rows = [[cell(freeing[key], 0) for key in ("first_ms", "median_ms", "last_ms")]]
    lines += table(["ms from the verdict to the first reset", "to the median", "to the last"], rows)
    return "\n".join(lines) + "\n"
