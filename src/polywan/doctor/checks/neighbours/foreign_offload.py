"""Another program's flowtable lets connections pass the box without meeting any rule."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.core.firewall.model import Chain, Firewall, Offload, Rule, Table
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours.lines import is_multi_wan, lines
from polywan.doctor.facts.programs import is_ours, maker_of


def check(box: Box) -> Iterator[Finding]:
    """Find flowtables with several lines in them, or with an uplink of polywan."""
    if not is_multi_wan(box):
        return
    for table, chain, rule, offload in _offloads(box.firewall):
        flows = next((flows for flows in table.flowtables if flows.name == offload.flowtable), None)
        devices = sorted(lines(box) if flows is None else lines(box) & set(flows.devices))
        if devices if box.config is not None else len(devices) > 1:
            shown = [f"{table.program}, {table}, chain {chain.name}: {rule.text}"]
            shown += [f"flowtable {flows.name}: {', '.join(flows.devices)}"] if flows is not None else []
            yield _finding(table, devices, tuple(shown), ours=box.config is not None)
            return


def _offloads(firewall: Firewall) -> Iterator[tuple[Table, Chain, Rule, Offload]]:
    for table in firewall.tables:
        for chain in table.chains if not is_ours(table) else ():
            for rule in chain.rules:
                yield from ((table, chain, rule, action) for action in rule.actions if isinstance(action, Offload))


def _finding(table: Table, devices: list[str], evidence: tuple[str, ...], *, ours: bool) -> Finding:
    program = maker_of(table)
    return Finding(
        check="foreign-offload",
        severity="warning" if ours else "note",
        what=f"{program or 'another program'} offloads connections by {listed(devices)} to a flowtable ({table})",
        evidence=evidence,
        consequence="their packets meet no rule: when a line fails behind its modem they stay on it until they time "
        "out, and marks, counters and shaping by rules do not apply to them",
        fix=Fix(how=_how(table, program, ours=ours)),
    )


def _how(table: Table, program: str, *, ours: bool) -> str:
    if program == "OpenWrt's firewall":
        how = "`uci set firewall.@defaults[0].flow_offloading=0`, `uci commit firewall`, `service firewall restart`"
    elif program == "firewalld":
        how = "`NftablesFlowtable=off` in /etc/firewalld/firewalld.conf, then `firewall-cmd --reload`"
    elif table.program == "nftables":
        how = f"take the rule with `flow add` out of the file that makes {table}"
    else:
        how = "take the rule with FLOWOFFLOAD out of the script that adds it"
    return f"{how}; polywan has a fast path of its own that knows its uplinks (global.fastpath)" if ours else how
