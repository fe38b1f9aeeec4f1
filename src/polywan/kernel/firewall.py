"""Reads the rules of other programs, without changing anything: no table is made, and no kernel module is loaded."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from polywan.child import CLEAN, manner
from polywan.core.errors import KernelError, MissingFeature
from polywan.core.firewall.iptables import parse as parse_iptables
from polywan.core.firewall.model import Firewall, Program, Table
from polywan.core.firewall.nftables import parse as parse_nftables
from polywan.core.firewall.nftables import replaced
from polywan.core.net import FAMILIES, Family
from polywan.kernel.nft.libnftables import Nftables

_TIMEOUT: Final = 4.0
"""Seconds for all that a program prints."""

_MOST_BYTES: Final = 16 << 20
"""Of one program: some 150 000 rules."""

_PIECE: Final = 65536
_PROGRAMS: Final = {Family.V4: "iptables", Family.V6: "ip6tables"}


class _Unreadable(Exception):  # noqa: N818 - a sentence about what cannot be read
    """A program has not printed its rules; the text says why."""


@dataclass(slots=True)
class Machine:
    """Where rules are read from; tests name other places.

    Attributes:
        listing: returns what ``nft -j list ruleset`` prints.
        run: runs a program and returns what it prints.
        net: the files of the thread's network namespace; those of the process may be another's.
        proc: proc(5).
    """

    listing: Callable[[], object] = field(default_factory=lambda: _listing)
    run: Callable[[Sequence[str]], str] = field(default_factory=lambda: _printed)
    net: Path = Path("/proc/thread-self/net")
    proc: Path = Path("/proc")


def read_firewall(machine: Machine | None = None) -> tuple[Firewall, tuple[str, ...]]:
    """Read all tables of nft and both kinds of iptables in the thread's network namespace; needs root.

    Returns:
        The tables, ours among them, and a sentence for each program whose rules could not be read.
    """
    machine = machine or Machine()
    problems: list[str] = []
    tables: tuple[Table, ...] = ()
    if _nftables_is_there(machine.proc):
        try:
            listing = machine.listing()
            tables = parse_nftables(listing if isinstance(listing, dict) else {})
        except MissingFeature as error:
            problems.append(f"the rules of nftables cannot be read: {error} is missing")
        except KernelError as error:
            problems.append(f"the rules of nftables cannot be read: {error}")
    for family in FAMILIES:
        shown: tuple[Table, ...] = ()
        if any(table.opaque and table.family == family.header for table in tables):
            shown = _saved(machine, family, "iptables", problems)
        tables = replaced(tables, shown)
        if _has_legacy_tables(machine.net, family, problems):
            tables += _saved(machine, family, "iptables-legacy", problems)
    return Firewall(tables), tuple(problems)


def _listing() -> object:
    nftables = Nftables()
    try:
        return nftables.ruleset()
    finally:
        nftables.close()


def _nftables_is_there(proc: Path) -> bool:
    """False when the kernel has no nf_tables yet: a question would load it, and it has no rules."""
    try:
        modules = (proc / "modules").read_text(encoding="ascii", errors="replace")
    except OSError:  # a kernel that loads no modules
        return True
    if any(line.startswith("nf_tables ") for line in modules.splitlines()):
        return True
    with suppress(OSError), (proc / "kallsyms").open(encoding="ascii", errors="replace") as symbols:
        return any(" nf_tables_newtable" in line for line in symbols)
    return True


def _has_legacy_tables(net: Path, family: Family, problems: list[str]) -> bool:
    name = "ip_tables_names" if family is Family.V4 else "ip6_tables_names"
    try:
        return bool((net / name).read_text(encoding="ascii", errors="replace").strip())
    except FileNotFoundError:
        return False
    except OSError as error:
        problems.append(f"the rules of {_PROGRAMS[family]}-legacy cannot be read: {error.strerror}")
        return False


def _saved(machine: Machine, family: Family, program: Program, problems: list[str]) -> tuple[Table, ...]:
    kind = "nft" if program == "iptables" else "legacy"
    name = f"{_PROGRAMS[family]}-{kind}-save"
    try:
        return parse_iptables(machine.run((name, "-c")), family, program)
    except _Unreadable as error:
        problems.append(f"the rules of {_PROGRAMS[family]}-{kind} cannot be read: {error}")
        return ()


def _printed(command: Sequence[str]) -> str:
    """Return what a program prints.

    Raises:
        _Unreadable: it is missing, fails, needs too long or prints too much.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=dict(CLEAN),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise _Unreadable(f"{command[0]} is not installed (package iptables)") from None
    except OSError as error:
        raise _Unreadable(f"{command[0]}: {error.strerror}") from error
    try:
        output = _read(process, command[0])
        status = process.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _Unreadable(f"{command[0]} did not end within {_TIMEOUT:g} s") from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if status != 0:
        raise _Unreadable(f"{command[0]} failed: {manner(status)}")
    return output.decode("utf-8", "replace")


def _read(process: subprocess.Popen[bytes], name: str) -> bytes:
    output = bytearray()
    if process.stdout is None:
        return b""
    end = time.monotonic() + _TIMEOUT
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while (remaining := end - time.monotonic()) > 0:
        if poll.poll(remaining * 1000):
            piece = os.read(process.stdout.fileno(), _PIECE)
            if not piece:
                return bytes(output)
            output += piece
            if len(output) > _MOST_BYTES:
                raise _Unreadable(f"{name} prints more than {_MOST_BYTES >> 20} MiB")
    raise _Unreadable(f"{name} did not end within {_TIMEOUT:g} s")
