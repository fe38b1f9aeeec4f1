"""What no single value can show: references between the parts, and parts that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from polywan.config.faults import Fault, Path, shown, suggest
from polywan.config.model import DEFAULT_POLICY, GlobalSettings, merged_health
from polywan.config.steering import WITH_PORTS, Match, Policy, SteeringRule
from polywan.config.uplink import HealthSettings, Snat, Uplink

_SYSTEM_TABLES = range(253, 256)
_MOST_UPLINKS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a file, each read for itself; None is a part with faults that other checks depend on."""

    uplinks: Mapping[str, Uplink | None]
    health: HealthSettings | None
    policies: Mapping[str, Policy | None]
    rules: tuple[SteeringRule | None, ...]
    global_: GlobalSettings | None


def check(parts: Parts) -> Iterator[Fault]:
    """Yield what is wrong between the parts, leaving out what a part that is None might cure."""
    yield from _devices(parts.uplinks)
    yield from _weights(parts.uplinks)
    for name, uplink in parts.uplinks.items():
        if uplink:
            yield from _families(("uplinks", name), uplink)
    yield from _quorums(parts)
    for name, policy in parts.policies.items():
        if policy:
            yield from _tiers(("policies", name, "tiers"), policy, parts.uplinks)
    for place, rule in enumerate(parts.rules):
        if rule:
            yield from _rule(("rules", place), rule, parts)
    if parts.global_:
        yield from _room(parts.global_, len(parts.uplinks))


def _devices(uplinks: Mapping[str, Uplink | None]) -> Iterator[Fault]:
    owners: dict[str, str] = {}
    for name, uplink in uplinks.items():
        if uplink is None:
            continue
        owner = owners.setdefault(uplink.interface, name)
        if owner != name:
            yield Fault(
                ("uplinks", name, "interface"),
                f"{shown(uplink.interface)} is the device of uplink {shown(owner)} already",
                "each uplink needs a device of its own; macvlan devices can share a cable",
            )


def _weights(uplinks: Mapping[str, Uplink | None]) -> Iterator[Fault]:
    explicit = next((n for n, u in uplinks.items() if u and u.weight is not None), None)
    derived = next((n for n, u in uplinks.items() if u and u.weight is None and u.bandwidth), None)
    if explicit and derived:
        yield Fault(
            ("uplinks", derived, "bandwidth"),
            f"would give a weight in Mbit/s, but uplink {shown(explicit)} has an explicit weight",
            "the two scales cannot be compared: give every uplink with a bandwidth a weight, or none",
        )


def _families(path: Path, uplink: Uplink) -> Iterator[Fault]:
    if uplink.families is None:
        return
    snat = uplink.nat.snat if isinstance(uplink.nat, Snat) else None
    addresses = {"gateway": uplink.gateway, "gateway6": uplink.gateway6, "source": uplink.source, "nat": snat}
    for key, address in addresses.items():
        if address is None or isinstance(address, str):
            continue
        family = f"ipv{address.version}"
        if family not in uplink.families:
            yield Fault(
                (*path, key),
                f'{shown(str(address))} is an {_spoken(family)} address, but families leave out "{family}"',
                f'add "{family}" to families, or leave {key} out',
            )


def _quorums(parts: Parts) -> Iterator[Fault]:
    if parts.health is None:
        return
    yield from _quorum(("health",), parts.health)
    for name, uplink in parts.uplinks.items():
        # Without a word on either key, the fault is that of [health] and reported there.
        if uplink and (uplink.health.quorum is not None or uplink.health.targets is not None):
            yield from _quorum(("uplinks", name, "health"), merged_health(parts.health, uplink.health))


def _quorum(path: Path, health: HealthSettings) -> Iterator[Fault]:
    for version in (4, 6):
        count = sum(t.version == version for t in health.targets)
        # A single target cannot outvote anything: it is the quorum, whatever the number says.
        if 1 < count < health.quorum:
            yield Fault(
                (*path, "quorum"),
                f"{health.quorum} answers are asked for, but there are only {count} IPv{version} targets",
                f"lower quorum to {count}, or add targets",
            )
            return


def _tiers(path: Path, policy: Policy, uplinks: Mapping[str, Uplink | None]) -> Iterator[Fault]:
    seen: set[str] = set()
    for i, tier in enumerate(policy.tiers):
        for j, member in enumerate(tier):
            name = member.uplink
            if name not in uplinks:
                yield Fault((*path, i, j), f"there is no uplink {shown(name)}", suggest(name, uplinks))
            elif name in seen:
                yield Fault((*path, i, j), f"uplink {shown(name)} is in this policy already", "name it once")
            seen.add(name)


def _rule(path: Path, rule: SteeringRule, parts: Parts) -> Iterator[Fault]:
    targets = [key for key in ("policy", "uplink", "action") if getattr(rule, key) is not None]
    if len(targets) != 1:
        found = " and ".join(targets) or "none"
        yield Fault(path, f"expected exactly one of policy, uplink and action, got {found}")
    if rule.policy is not None and rule.policy not in {DEFAULT_POLICY, *parts.policies}:
        known = {DEFAULT_POLICY, *parts.policies}
        yield Fault((*path, "policy"), f"there is no policy {shown(rule.policy)}", suggest(rule.policy, known))
    if rule.uplink is not None and rule.uplink not in parts.uplinks:
        hint = suggest(rule.uplink, parts.uplinks)
        yield Fault((*path, "uplink"), f"there is no uplink {shown(rule.uplink)}", hint)
    yield from _ports(path, rule)
    yield from _rule_families(path, rule)


def _ports(path: Path, rule: SteeringRule) -> Iterator[Fault]:
    if rule.protocol in WITH_PORTS:
        return
    has = f'"{rule.protocol}" has no ports' if rule.protocol else "only some protocols have ports"
    places: tuple[tuple[Path, Match], ...] = ((path, rule), ((*path, "not"), rule.not_))
    for where, match in places:
        for key in ("port", "source_port"):
            if getattr(match, key):
                yield Fault(
                    (*where, key),
                    f"{has}; expected protocol tcp, udp or sctp in the rule",
                    'add protocol = "tcp"',
                )


def _rule_families(path: Path, rule: SteeringRule) -> Iterator[Fault]:
    versions = {key: {n.version for n in nets} for key, nets in (("from", rule.from_), ("to", rule.to)) if nets}
    if rule.family is not None:
        for key, found in versions.items():
            others = [v for v in sorted(found) if f"ipv{v}" != rule.family]
            if others:
                message = f'holds IPv{others[0]} addresses, but family is "{rule.family}"'
                yield Fault((*path, key), message, "leave family out: the addresses tell it")
    elif len(versions) == 2 and not versions["from"] & versions["to"]:
        yield Fault((*path, "to"), "shares no address family with from, so the rule could never match")


def _room(settings: GlobalSettings, uplinks: int) -> Iterator[Fault]:
    mask = settings.mark_mask
    room = _capacity(mask)
    if uplinks > room:
        wider = _widened(mask, uplinks)
        hint = f"mark_mask = {wider:#x} has room for {_capacity(wider)}, if nobody else uses the added bits"
        yield Fault(("global", "mark_mask"), f"{mask:#x} has room for {room} uplinks, but there are {uplinks}", hint)
    tables = range(settings.table_base, settings.table_base + min(room, _MOST_UPLINKS) + 1)
    if any(t in tables for t in _SYSTEM_TABLES):
        yield Fault(
            ("global", "table_base"),
            f"tables {tables.start} to {tables.stop - 1} would hold the system's own, 253 to 255",
            "use a number from 256 on, as 6000",
        )


def _capacity(mask: int) -> int:
    return int((1 << mask.bit_count()) - 2)


def _widened(mask: int, uplinks: int) -> int:
    """Add bits to the mask until there is room: below it first, since 0x4000 and 0x8000 are kube-proxy's."""
    lowest = (mask & -mask).bit_length() - 1
    for bit in [*range(lowest - 1, -1, -1), *range(lowest + 1, 32)]:
        if _capacity(mask) >= uplinks:
            break
        mask |= 1 << bit
    return mask


def _spoken(family: str) -> str:
    return family.replace("ipv", "IPv")
