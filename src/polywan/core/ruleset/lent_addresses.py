"""Translation on links without an address of their own: by the address that they are lent (`reach.lent`)."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.core.net import Family
from polywan.core.ruleset.inputs import RulesetInput
from polywan.core.ruleset.model import NftRule
from polywan.core.world.paths import NoPath


def lent_addresses(inputs: RulesetInput) -> Iterator[NftRule]:
    """Yield a rule for each uplink that masquerades by an address of another link.

    Left to itself, `masquerade` takes the first of the loopback device or of some other one: for two uplinks whose
    addresses are both there, the same.
    """
    for (name, family), reached in inputs.reach.items():
        path = reached.path if isinstance(reached, NoPath) else reached
        device = inputs.config.uplinks[name].interface
        if path is None or path.source is None or path.prefixes or inputs.config.uplinks[name].nat != "masquerade":
            continue
        if not inputs.observed.addresses_of(device, family):
            word = "ip" if family is Family.V4 else "ip6"
            text = f'oifname "{device}" meta nfproto {family.nfproto} snat {word} to {path.source}'
            yield NftRule(text, f"lent address of {name}")
