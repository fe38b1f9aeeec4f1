"""Programs that `polywan exec --via NAME` started: their connections leave by that uplink, or not at all.

The paths of control groups stand in rules of their own and the uplinks' states in maps: when an uplink fails, the
transaction that moves everybody else names no group, so a group that vanished meanwhile cannot make nft refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polywan.core.net import FAMILIES, Family
from polywan.core.policy.selection import Selection
from polywan.core.resolved import Resolved
from polywan.core.ruleset.inputs import ROOM, RulesetInput
from polywan.core.ruleset.model import Chain, Key, NftMap, NftRule, NftState, NftTable
from polywan.core.world.lookups import VIA, ControlGroup, via_group
from polywan.core.world.paths import Path, Reach, UplinkFamily


def serves(
    config: Resolved, name: str, family: Family, reach: Mapping[UplinkFamily, Reach], selection: Selection
) -> bool:
    """True when programs that asked for this uplink may open connections of the family.

    With no healthy uplink left they may try: nobody can say then whether it is the uplinks or the targets.
    """
    key = (name, family)
    return config.uplinks[name].enabled and isinstance(reach.get(key), Path) and key not in selection.dead


def via_entry(inputs: RulesetInput) -> Iterator[NftRule]:
    """Yield the rule that leads programs of `exec` out of chain `classify_local`; nothing as long as there are none.

    It asks for the group above those of the uplinks, so that other programs pass one rule only, and a program whose
    uplink was removed from the file, or whose group nobody has looked up yet, is not balanced by mistake.
    """
    if group := inputs.lookups.cgroups.get(VIA):
        yield NftRule(f"{_match(group)} goto via", f"started by exec --via, group {group.inode}")


def via_chains(inputs: RulesetInput) -> dict[str, Chain]:
    """Return the chains that find a program's uplink by its group, and refuse what that uplink does not take."""
    mask, keep = inputs.layout.mask, inputs.layout.keep
    find = [
        NftRule(
            f"{_match(group)} meta mark set meta mark & {keep:#010x} | {inputs.numbers[name].mark:#010x} goto via_mark",
            f"via {name}, group {group.inode}",
        )
        for name, group in _groups(inputs)
    ]
    take = [
        NftRule(f"meta nfproto {f.nfproto} meta mark & {mask:#010x} vmap @via_{f}", "by its uplink, if that serves")
        for f in FAMILIES
    ]
    # A reset ends connect(2) at once in both families; on an ICMPv6 error it waits for the second SYN.
    refuse = (
        NftRule("meta l4proto tcp reject with tcp reset", "its uplink does not serve: nowhere else"),
        NftRule("reject with icmpx type no-route", "its uplink does not serve: nowhere else"),
    )
    return {
        "via": Chain((*find, NftRule("goto via_mark", "its uplink is not known"))),
        "via_mark": Chain((*take, *refuse)),
    }


def via_maps(inputs: RulesetInput) -> dict[str, NftMap]:
    """Return the uplinks that take connections of their programs, by mark and family."""
    names = [name for name, _ in _groups(inputs)]
    maps = {}
    for family in FAMILIES:
        open_: dict[Key, str] = {
            int(inputs.numbers[name].mark): f"goto to_{name}"
            for name in names
            if serves(inputs.config, name, family, inputs.reach, inputs.selection)
        }
        maps[f"via_{family}"] = NftMap(f"type mark : verdict; {ROOM}", open_)
    return maps


def in_force(desired: NftTable, actual: NftState) -> bool:
    """True when the kernel, as last read, leads programs where they should go; states of uplinks are not compared."""
    wanted = {
        name: tuple(rule.comment for rule in desired.chains[name].rules)
        for name in ("classify_local", "via", "via_mark")
    }
    return all(name in actual.chains and actual.chains[name].rules == rules for name, rules in wanted.items())


def _groups(inputs: RulesetInput) -> Iterator[tuple[str, ControlGroup]]:
    for name in inputs.config.uplinks:
        if group := inputs.lookups.cgroups.get(via_group(name)):
            yield name, group


def _match(group: ControlGroup) -> str:
    return f'socket cgroupv2 level {group.level} "{group.path}"'
