"""What no single value can show: references between the parts, and parts that contradict each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from polywan.config.faults import ConfigFault, Path, shown, suggest
from polywan.config.kinds.scalars import span
from polywan.config.loading.check_devices import check_devices, check_multipath
from polywan.config.loading.check_quotas import check_quotas
from polywan.config.loading.check_rules import check_rules
from polywan.config.loading.check_shaping import check_shaped_devices, check_shaping
from polywan.config.loading.parts import Parts
from polywan.config.model.config import GlobalSettings, merged_health
from polywan.config.model.numbering import DIRECT, MOST_NUMBERS, ONLY, capacity, marked, widened
from polywan.config.model.policy import Affinity, Algorithm, Policy
from polywan.config.model.uplink import HealthSettings, Snat, Uplink

RESERVED: Final = (DIRECT, ONLY)
"""Beginnings of the names of policies that polywan makes for rules with `uplink` and with `only`."""

_LOOKED_AT: Final = {"http": "http_url", "script": "script"}
"""Checks that have no default to look at."""

_WANTED: Final = {
    "http_url": 'add http_url = "http://…", a page of yours or of your distribution that answers with status 204',
    "script": 'add script = ["/path/to/program"], which exits with 0 when all is well',
}

_MEANINGS: Final = {
    "other": "`polywan flows` uses it for connections without an uplink",
    "probe": "`polywan flows` uses it for polywan's own probes",
}
"""Names that mean something else where people meet them."""

_SYSTEM_TABLES: Final = range(253, 256)

_UNKEPT: Final[dict[Algorithm, str]] = {
    "source": "a hash of the source already keeps each client on its uplink",
    "source-parity": "the last bit of the source already keeps each client on its uplink",
    "multipath": "the kernel chooses the uplink without regard to affinity",
    "per-packet": "the uplink is chosen for each packet, not for a connection",
}
"""Why an algorithm and affinity exclude each other."""

_KEPT_PAIRS: Final = {
    "source-destination": "a hash of client and server already keeps each pair on its uplink",
    "source": "affinity by client would override the choice by client and server",
}
"""The same for the algorithm `source-destination`, by the key of the affinity."""


def check(parts: Parts) -> Iterator[ConfigFault]:
    """Yield what is wrong between the parts, leaving out what a part that is None might cure."""
    yield from check_devices(parts.uplinks)
    yield from _weights(parts.uplinks)
    yield from _taken(parts.uplinks)
    for name, uplink in parts.uplinks.items():
        if uplink:
            yield from _families(("uplinks", name), uplink)
            yield from _nat6(("uplinks", name), uplink)
            yield from check_shaping(("uplinks", name), uplink)
    yield from check_shaped_devices(parts.uplinks)
    yield from check_quotas(parts.uplinks)
    yield from _quorums(parts)
    yield from _recoveries(parts)
    yield from _lacking(parts)
    for name, policy in parts.policies.items():
        yield from _reserved(("policies", name))
        if policy:
            yield from _tiers(("policies", name, "tiers"), policy, parts.uplinks)
            yield from _algorithm(("policies", name), policy, parts.uplinks)
    yield from check_rules(parts)
    if parts.global_:
        yield from _room(parts.global_, parts)
        yield from _tables(parts.global_)


def _taken(uplinks: Iterable[str]) -> Iterator[ConfigFault]:
    for name in uplinks:
        if meaning := _MEANINGS.get(name):
            yield ConfigFault(("uplinks", name), f"cannot be the name of an uplink: {meaning}", "choose another name")


def _weights(uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    explicit = next((n for n, u in uplinks.items() if u and u.weight is not None), None)
    derived = next((n for n, u in uplinks.items() if u and u.weight is None and u.bandwidth), None)
    if explicit and derived:
        yield ConfigFault(
            ("uplinks", derived, "bandwidth"),
            f"would give a weight in Mbit/s, but uplink {shown(explicit)} has an explicit weight",
            "the two scales cannot be compared: give every uplink with a bandwidth a weight, or none",
        )


def _nat6(path: Path, uplink: Uplink) -> Iterator[ConfigFault]:
    if uplink.nat != "masquerade" and uplink.nat6 in ("prefix", "masquerade"):
        nat = f'nat = "{uplink.nat}"' if isinstance(uplink.nat, str) else "nat = {snat = …}"
        yield ConfigFault(
            (*path, "nat6"),
            f"{shown(uplink.nat6)} has no effect, because {nat} applies to both families",
            'remove nat6, or set nat = "masquerade"',
        )


def _families(path: Path, uplink: Uplink) -> Iterator[ConfigFault]:
    if uplink.families is None:
        return
    if uplink.prefix6 and "ipv6" not in uplink.families:
        message = 'contains IPv6 prefixes, but families lacks "ipv6"'
        yield ConfigFault((*path, "prefix6"), message, 'add "ipv6" to families, or remove prefix6')
    snat = uplink.nat.snat if isinstance(uplink.nat, Snat) else None
    addresses = {"gateway": uplink.gateway, "gateway6": uplink.gateway6, "source": uplink.source, "nat": snat}
    for key, address in addresses.items():
        if address is None or isinstance(address, str):
            continue
        family = f"ipv{address.version}"
        if family not in uplink.families:
            yield ConfigFault(
                (*path, key),
                f'{shown(str(address))} is an {_spoken(family)} address, but families lacks "{family}"',
                f'add "{family}" to families, or remove {key}',
            )


def _quorums(parts: Parts) -> Iterator[ConfigFault]:
    if parts.health is None:
        return
    yield from _quorum(("health",), parts.health)
    for name, uplink in parts.uplinks.items():
        # Without a word on either key, the fault is that of [health] and reported there.
        if uplink and (uplink.health.quorum is not None or uplink.health.targets is not None):
            yield from _quorum(("uplinks", name, "health"), merged_health(parts.health, uplink.health))


def _quorum(path: Path, health: HealthSettings) -> Iterator[ConfigFault]:
    for version in (4, 6):
        count = sum(t.version == version for t in health.targets)
        # A single target cannot outvote anything: it is the quorum, whatever the number says.
        if 1 < count < health.quorum:
            yield ConfigFault(
                (*path, "quorum"),
                f"{health.quorum} answers are required, but there are only {count} IPv{version} targets",
                f"lower quorum to {count}, or add targets",
            )
            return


def _lacking(parts: Parts) -> Iterator[ConfigFault]:
    """Yield checks that lack what they look at; a fault of [health] is reported once, and there."""
    if parts.health is None:
        return
    reported: set[str] = set()
    for name, uplink in parts.uplinks.items():
        if uplink is None:
            continue
        settings = merged_health(parts.health, uplink.health)
        for check, key in _LOOKED_AT.items():
            if check not in settings.checks or getattr(settings, key) is not None:
                continue
            own = uplink.health.checks is not None
            if own:
                path: Path = ("uplinks", name, "health", "checks")
            elif check in reported:
                continue
            else:
                reported.add(check)
                path = ("health", "checks")
            yield ConfigFault(
                path, f"{shown(check)} needs {key}, which uplink {shown(name)} does not have", _WANTED[key]
            )


def _recoveries(parts: Parts) -> Iterator[ConfigFault]:
    if parts.health is None:
        return
    yield from _recovery(("health",), parts.health, parts.health.model_fields_set)
    for name, uplink in parts.uplinks.items():
        if uplink:
            merged = merged_health(parts.health, uplink.health)
            yield from _recovery(("uplinks", name, "health"), merged, uplink.health.model_fields_set)


def _recovery(path: Path, health: HealthSettings, written: Collection[str]) -> Iterator[ConfigFault]:
    """An uplink that is degraded has to be able to become well again; `written` are the keys of this table."""
    limits = {
        "rtt": (health.degraded_rtt, health.recovered_rtt, span),
        "loss": (health.degraded_loss, health.recovered_loss, "{:.0%}".format),
    }
    for what, (enter, leave, unit) in limits.items():
        lower, upper = f"recovered_{what}", f"degraded_{what}"
        key = lower if lower in written else upper
        if leave >= enter and key in written:
            other = upper if key == lower else lower
            limit, unlike = (enter, "below") if key == lower else (leave, "above")
            yield ConfigFault(
                (*path, key),
                f"must be {unlike} {other}, which is {unit(limit)}; otherwise the state would flap",
                f'set both, for example {upper} = "{unit(enter)}" and {lower} = "{unit(enter / 2)}"' if enter else "",
            )


def _tiers(path: Path, policy: Policy, uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    seen: set[str] = set()
    for i, tier in enumerate(policy.tiers):
        for j, member in enumerate(tier):
            name = member.uplink
            if name not in uplinks:
                yield ConfigFault((*path, i, j), f"there is no uplink {shown(name)}", suggest(name, uplinks))
            elif name in seen:
                yield ConfigFault((*path, i, j), f"uplink {shown(name)} is already in this policy", "name it once")
            seen.add(name)


def _reserved(path: Path) -> Iterator[ConfigFault]:
    beginning = next((word for word in RESERVED if str(path[-1]).startswith(word)), None)
    if beginning:
        yield ConfigFault(
            path, f'names that begin with "{beginning}" are reserved for policies that polywan makes for rules'
        )


def _algorithm(path: Path, policy: Policy, uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    if policy.affinity:
        yield from _affinity((*path, "affinity"), policy.algorithm, policy.affinity)
    if policy.algorithm == "source-parity":
        for place, tier in enumerate(policy.tiers):
            if len(tier) != 2:
                yield ConfigFault(
                    (*path, "tiers", place),
                    f'"source-parity" separates even and odd sources, so it needs two uplinks here, not {len(tier)}',
                    'use algorithm = "source" for any number of uplinks',
                )
    if policy.algorithm == "per-packet":
        yield from _translating((*path, "algorithm"), policy, uplinks)
    if policy.algorithm in ("multipath", "per-packet"):
        yield from check_multipath((*path, "algorithm"), policy, uplinks)


def _affinity(path: Path, algorithm: Algorithm, affinity: Affinity) -> Iterator[ConfigFault]:
    reason = _KEPT_PAIRS[affinity.key] if algorithm == "source-destination" else _UNKEPT.get(algorithm)
    if reason:
        hint = 'remove affinity, or use algorithm = "weighted" with it'
        yield ConfigFault(path, f"cannot be combined with algorithm {shown(algorithm)}: {reason}", hint)


def _translating(path: Path, policy: Policy, uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    members = dict.fromkeys(member.uplink for tier in policy.tiers for member in tier)
    lacking = {name: keys for name in members if (link := uplinks.get(name)) and (keys := _keys_lacking(link))}
    if lacking:
        missing = " and ".join(dict.fromkeys(key for found in lacking.values() for key in found))
        yield ConfigFault(
            path,
            '"per-packet" sends packets of one connection over several uplinks, but source addresses are translated on '
            f"{', '.join(lacking)}: servers and firewalls would drop packets from unknown addresses",
            f'use algorithm = "weighted"; or, where all uplinks carry the same addresses (tunnels), add {missing}',
        )


def _keys_lacking(link: Uplink) -> list[str]:
    """What has to be added to an uplink so that no address is translated in the families it serves."""
    if link.nat == "none":
        return []
    if link.families == ("ipv6",):
        return [] if link.nat6 == "native" else ['nat6 = "native"']
    return ['nat = "none"']


def _room(settings: GlobalSettings, parts: Parts) -> Iterator[ConfigFault]:
    mask = settings.mark_mask
    room = capacity(mask)
    policies = list(marked(parts.policies, parts.rules))
    wanted = len(parts.uplinks) + len(policies)
    if wanted <= room:
        return
    limit = f"{mask:#x} has room for {room}" if room < MOST_NUMBERS else f"polywan has room for {room}"
    problems = f"{limit} uplinks, but there are {len(parts.uplinks)}"
    if policies:
        named = ", ".join(name for name, _ in policies[:3]) + (", …" if len(policies) > 3 else "")
        noun = "policy" if len(policies) == 1 else "policies"
        uplinks = "1 uplink" if len(parts.uplinks) == 1 else f"{len(parts.uplinks)} uplinks"
        have = f"{uplinks} and {len(policies)} multipath or per-packet {noun} ({named})"
        problems = f"{limit} marks, but {have} need {wanted}"
    # The line that does not fit any more helps more than that of a mask that nobody wrote.
    places: list[Path] = [*(("uplinks", name) for name in parts.uplinks), *(place for _, place in policies)]
    yield ConfigFault(
        ("global", "mark_mask") if "mark_mask" in settings.model_fields_set else places[room],
        problems,
        _more_room(mask, wanted),
    )


def _more_room(mask: int, wanted: int) -> str:
    if wanted > MOST_NUMBERS:
        return f"{MOST_NUMBERS} is the maximum, whatever the mask"
    wider = widened(mask, wanted)
    return f"mark_mask = {wider:#x} has room for {capacity(wider)}, if no other program uses the added bits"


def _tables(settings: GlobalSettings) -> Iterator[ConfigFault]:
    tables = range(settings.table_base, settings.table_base + capacity(settings.mark_mask) + 1)
    if any(t in tables for t in _SYSTEM_TABLES):
        yield ConfigFault(
            ("global", "table_base"),
            f"tables {tables.start} to {tables.stop - 1} would include the system's own, 253 to 255",
            "use a number above 255, such as 6000",
        )


def _spoken(family: str) -> str:
    return family.replace("ipv", "IPv")
