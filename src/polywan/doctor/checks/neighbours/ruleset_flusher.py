"""A file that something loads removes the rules of everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import Table
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours.lines import is_multi_wan
from polywan.doctor.facts.programs import maker_of, mark_uses

_NFT_FILES: Final = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
_UNIT: Final = "nftables.service"

_FLUSH: Final = re.compile(r"\bflush\s+ruleset\b")
_NFT_COMMAND: Final = re.compile(r"\bnft\b[^;|&#]*\bflush\s+ruleset\b")
_MANGLE: Final = re.compile(
    r"\bip6?tables(?:-nft|-legacy)?\b(?=[^;|&#]*\s-t\s*mangle\b)[^;|&#]*\s(?:-F|--flush)(?:\s|$)"
)
_MANGLE_ADDED: Final = re.compile(r"\bip6?tables(?:-nft|-legacy)?\b(?=[^;|&#]*\s-t\s*mangle\b)[^;|&#]*\s-[AI]\s")
_INCLUDE: Final = re.compile(r'^\s*include\s+"', re.MULTILINE)


class _Flush(NamedTuple):
    """A line that removes rules: of every table, or of the table mangle."""

    path: str
    number: int
    line: str
    every: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.line}"


def check(box: Box) -> Iterator[Finding]:
    """Find what removes polywan's table, or marks that were made by hand and are not in the file itself."""
    if not box.programs.boots or not is_multi_wan(box):
        return
    texts = {**box.programs.files, **box.scripts}
    flushes = list(_flushes(texts, nftables=_UNIT in box.programs.enabled))
    lost = {flush: tables for flush in flushes if (tables := _lost(box, flush, texts))}
    if lost:
        yield _loses(lost)
    every = [flush for flush in flushes if flush.every and flush not in lost]
    if box.config is not None and every:
        yield _repaired(every)


def _flushes(texts: Mapping[str, str], *, nftables: bool) -> Iterator[_Flush]:
    for path, text in texts.items():
        rules = path in _NFT_FILES
        if path.endswith(".nft") or (rules and not nftables):
            continue
        for number, raw in enumerate(text.splitlines(), start=1):
            line = raw.partition("#")[0].strip()
            if (_FLUSH if rules else _NFT_COMMAND).search(line):
                yield _Flush(path, number, line, every=True)
            elif not rules and _MANGLE.search(line):
                yield _Flush(path, number, line, every=False)


def _lost(box: Box, flush: _Flush, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the tables with marks made by hand that the flush removes and the file does not make again."""
    text = texts[flush.path]
    if _INCLUDE.search(text) or _MANGLE_ADDED.search(text):
        return ()
    tables = dict.fromkeys(use.table for use in mark_uses(box.firewall) if use.writes and not maker_of(*use[1:3]))
    return tuple(f"{table.program}, {table}" for table in tables if _removes(flush, table, text))


def _removes(flush: _Flush, table: Table, text: str) -> bool:
    if not flush.every:
        return (
            table.program != "nftables" and table.name == "mangle" and (table.family == "ip6") == ("ip6t" in flush.line)
        )
    if table.program == "iptables-legacy":
        return False
    return re.search(rf"\btable\s+{table.family}\s+{re.escape(table.name)}\b", text) is None


def _loses(lost: Mapping[_Flush, tuple[str, ...]]) -> Finding:
    tables = listed(list(dict.fromkeys(table for found in lost.values() for table in found)))
    files = list(dict.fromkeys(flush.path for flush in lost))
    return Finding(
        check="ruleset-flusher",
        severity="warning",
        what=f"{listed(files)} removes marks that it does not set up again ({tables})",
        evidence=tuple(map(str, lost)),
        consequence="once it is loaded or run again, no connection has a mark, and all leave by main's default",
        fix=Fix(
            how="let it delete its own tables or chains only (nft: `add table inet NAME` and `delete table inet NAME` "
            "instead of `flush ruleset`), or move these rules into it"
        ),
    )


def _repaired(every: list[_Flush]) -> Finding:
    files = list(dict.fromkeys(flush.path for flush in every))
    return Finding(
        check="ruleset-flusher",
        severity="note",
        what=f"{listed(files)} removes the rules of every program, polywan's among them",
        evidence=tuple(map(str, every)),
        consequence="polywan has its own back within 2 s, and what is connected goes on; rules that others add at run "
        "time, such as those of Docker, are lost",
        fix=Fix(
            how="let it delete its own tables only: `add table inet NAME` and `delete table inet NAME` instead of "
            "`flush ruleset`"
        ),
    )
