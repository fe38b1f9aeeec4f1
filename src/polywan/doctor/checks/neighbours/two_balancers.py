"""Two programs balance or fail over at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.facts.programs import is_ours, maker_of, mark_uses

BALANCERS: Final = ("mwan3", "mwan4", "VyOS's load balancing", "Shorewall")
"""Those of `PROGRAMS` that choose between lines; Shorewall by a chain that it has for providers only."""

_PROCESSES: Final[Mapping[str, str]] = {
    "mwan3track": "mwan3",
    "mwan3rtmon": "mwan3",
    "vyos-load-balan": "VyOS's load balancing",
    "foolsm": "Net-ISP-Balance",
    "pingu": "pingu",
}
"""Programs by the names of their processes, 15 characters at most."""

_STOP: Final[Mapping[str, str]] = {
    "mwan3": "`service mwan3 stop` and `service mwan3 disable`",
    "mwan4": "`service mwan4 stop` and `service mwan4 disable`",
    "VyOS's load balancing": "`delete load-balancing wan` and `commit`",
    "Net-ISP-Balance": "`load_balance.pl -k`",
    "Shorewall": "empty /etc/shorewall/providers and `shorewall restart`",
    "pingu": "`service pingu stop`",
}

HAND_MADE: Final = "a set of rules made by hand"


def check(box: Box) -> Iterator[Finding]:
    """Find another one beside polywan, or two others."""
    found = _balancers(box)
    if box.config is not None and found:
        yield _beside_ours(found, running=box.status is not None)
    elif len(found) > 1:
        yield _two(found)


def _balancers(box: Box) -> Mapping[str, tuple[str, ...]]:
    """Return who balances, and what shows it."""
    found: dict[str, dict[str, None]] = {}
    for table in box.firewall.tables:
        for chain in table.chains if not is_ours(table) else ():
            if (maker := maker_of(table, chain)) in BALANCERS and chain.rules:
                found.setdefault(maker, {})[f"{table.program}, {table}: chain {chain.name}"] = None
    for process, program in _PROCESSES.items():
        if process in box.programs.running:
            found.setdefault(program, {})[f"process {process} runs"] = None
    led = {rule.mark[0] & rule.mark[1] for rule in box.observed.rules if rule.mark is not None and not rule.invert}
    for use in mark_uses(box.firewall):
        if use.balances and not use.program and use.value in led:
            found.setdefault(HAND_MADE, {})[use.where] = None
    return {program: tuple(shown)[:3] for program, shown in found.items()}


def _stop(programs: Mapping[str, object]) -> str:
    how = "take its `statistic` or `numgen` rules and its `ip rule` out of the script that adds them"
    return "; ".join(f"{program}: {_STOP.get(program, how)}" for program in programs)


def _beside_ours(found: Mapping[str, tuple[str, ...]], *, running: bool) -> Finding:
    names = listed(list(found))
    return Finding(
        check="two-balancers",
        severity="fault" if running else "warning",
        what=f"{names} chooses lines, too, beside polywan",
        evidence=tuple(line for shown in found.values() for line in shown),
        consequence="what its rules mark goes where they say: polywan neither balances it nor moves it after a failure"
        if running
        else "once polywan runs, two programs choose lines",
        fix=Fix(how=f"stop one of them ({_stop(found)})"),
    )


def _two(found: Mapping[str, tuple[str, ...]]) -> Finding:
    return Finding(
        check="two-balancers",
        severity="warning",
        what=f"{listed(list(found))} choose lines at the same time",
        evidence=tuple(line for shown in found.values() for line in shown),
        consequence="a connection leaves by the line that the last of them marked, and one moves what the other left",
        fix=Fix(how=f"keep one of them ({_stop(found)})"),
    )
