"""Translation where `masquerade` would take the wrong address: by the one that the uplink has been given.

That is a link without an address of its own (`paths.lent`), and one that several uplinks share.
"""

from __future__ import annotations

from collections.abc import Iterator

from polywan.core.net import Family, IPAddress, IPInterface
from polywan.core.ruleset.inputs import RulesetInput, by_mark
from polywan.core.ruleset.model import NftRule
from polywan.core.world.paths import NoPath


def lent_addresses(inputs: RulesetInput) -> Iterator[NftRule]:
    """Yield a rule for each uplink that masquerades by an address which the kernel would not take.

    Left to itself, `masquerade` takes the first of the loopback device or of some other one: for two uplinks whose
    addresses are both there, the same.
    """
    for (name, family), reached in inputs.reach.items():
        path = reached.path if isinstance(reached, NoPath) else reached
        device = inputs.config.uplinks[name].interface
        if path is None or path.source is None or inputs.config.uplinks[name].nat != "masquerade":
            continue
        snat = f"snat {family.header} to {path.source}"
        if name in inputs.config.sharing:
            right = path.source == _masquerades(inputs.observed.addresses_of(device, family), path.via, family)
            match = by_mark(device, int(inputs.numbers[name].mark), inputs.layout)
            verdict = "masquerade" if right else snat
            yield NftRule(f"{match} meta nfproto {family.nfproto} {verdict}", f"the address of {name}")
        elif not path.prefixes and not inputs.observed.addresses_of(device, family):
            yield NftRule(f'oifname "{device}" meta nfproto {family.nfproto} {snat}', f"lent address of {name}")
    if inputs.shared:
        # Such as probes have: masqueraded, it would be the device's first one, whichever router it goes to.
        text = f"{inputs.by_shared} fib saddr . oif type local accept"
        yield NftRule(text, "has an address of the device already")


def _masquerades(present: tuple[IPInterface, ...], via: IPAddress | None, family: Family) -> IPAddress | None:
    """Return the address that `masquerade` takes: the first in the router's network; in IPv6 that depends on more."""
    if family is Family.V6 and len(present) > 1:
        return None
    return next((a.ip for a in sorted(present, key=lambda a: via is None or via not in a.network)), None)
