"""The configuration as frozen values. Every default has its reason in the field's description."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import Field

from polywan.config.kinds.addresses import IPAddress, IPNetwork
from polywan.config.kinds.matches import FwMark, Owner, Window
from polywan.config.kinds.scalars import Flag, Mask, Whole
from polywan.config.model.base import FamilyName, Interface, Model, Name, Seconds
from polywan.config.model.hooks import Hooks
from polywan.config.model.policy import Affinity, Member, Policy
from polywan.config.model.steering_rule import Match, SteeringRule
from polywan.config.model.uplink import Bandwidth, HealthOverrides, HealthSettings, Snat, Uplink

__all__ = [
    "DEFAULT_POLICY",
    "RULE_BAND",
    "Affinity",
    "Bandwidth",
    "Config",
    "FamilyName",
    "FwMark",
    "GlobalSettings",
    "HealthOverrides",
    "HealthSettings",
    "Hooks",
    "IPAddress",
    "IPNetwork",
    "Interface",
    "Match",
    "Member",
    "Model",
    "Name",
    "Owner",
    "Policy",
    "Seconds",
    "Snat",
    "SteeringRule",
    "Uplink",
    "Window",
]

DEFAULT_POLICY: Final = "default"
"""Name of the policy that exists without being written."""

RULE_BAND: Final = 900
"""Policy rules have priorities from `priority` to `priority` + 899."""

METERED_PACE: Final = {"interval": 10.0, "check_interval": 60.0}
"""Seconds between probes where volume costs money, if nobody says otherwise: a tenth, and a sixth, of the volume."""

_MAIN_RULE: Final = 32766


class GlobalSettings(Model):
    """What concerns the whole box."""

    mark_mask: Annotated[int, Mask()] = Field(
        default=0x3F00_0000,
        description="Bits of the packet and connection mark that belong to polywan, at least 3; n bits give room "
        "for 2^n - 2 uplinks. All other bits belong to other programs. Default 0x3f000000: 62 uplinks, in bits that "
        "neither VPN clients nor proxies, container networks and other routers' tools use in their marks "
        "(docs/design/neighbours.md lists them). A box that was set up by an older version keeps 0x3f00 until "
        "`polywan down`.",
    )
    priority: Annotated[int, Whole(1, _MAIN_RULE - RULE_BAND)] = Field(
        default=6000,
        description="Priority of the first policy rule (ip-rule(8)); polywan uses it and the 899 above. Default "
        "6000: ahead of the main table (32766), behind 5200 to 5300, where VPN clients put theirs.",
    )
    table_base: Annotated[int, Whole(1, 2_000_000_000)] = Field(
        default=6000,
        description="Number before the first routing table; each uplink has one, and 253 to 255 belong to the "
        "system. Default 6000, like `priority`: above 255, where administrators number their own.",
    )
    forwarding: Annotated[bool | Literal["auto"], Flag(("auto",))] = Field(
        default="auto",
        description='Whether the box forwards packets (sysctl ip_forward): true, false or "auto", which '
        'turns it on when a rule needs it and never off. Default "auto": a host without a LAN stays a '
        "host.",
    )
    fastpath: Annotated[Literal["auto", False], Flag(("auto",), (False,))] = Field(
        default="auto",
        description='Whether established connections that the box forwards take the kernel\'s fast path: "auto" or '
        "false. Their packets then cost half of bare forwarding, and meet no rule of any program. Default "
        '"auto": where the kernel can, and where nothing else on the box has to see every packet '
        "(docs/design/packet-path.md).",
    )


class Config(Model):
    """The whole file.

    References between its parts are checked by the loader, not here.
    """

    uplinks: Mapping[Name, Uplink] = Field(
        description="Links to the Internet, by name. No default: at least one is needed. Their order in the file "
        "is kept.",
    )
    health: HealthSettings = Field(
        default=HealthSettings(),
        description="How uplinks are probed, unless their own settings differ. Default: every second, so that "
        "silence is noticed within 2.5 seconds.",
    )
    policies: Mapping[Name, Policy] = Field(
        default={},
        description="Policies, by name. Default: none but `default`, which need not be written.",
    )
    rules: tuple[SteeringRule, ...] = Field(
        default=(),
        description="Which connections go where; the first match wins. Default: none, so that everything that "
        "would leave by an uplink goes to the policy `default`.",
    )
    global_: GlobalSettings = Field(
        default=GlobalSettings(),
        alias="global",
        description="What concerns the whole box. Default: outside the ranges that other programs are known to use.",
    )
    hooks: Hooks = Field(
        default=Hooks(),
        description="Programs that are called when something becomes of an uplink. Default: none.",
    )

    def health_of(self, uplink: str) -> HealthSettings:
        """Return the probing of one uplink: its own overrides, else what [health] says, else the defaults.

        A metered uplink has defaults of its own (`METERED_PACE`): they hold for what neither of the two says.
        """
        unsaid = {key: METERED_PACE[key] for key in self.unsaid(uplink)}
        general = self.health.model_copy(update=unsaid) if unsaid else self.health
        return merged_health(general, self.uplinks[uplink].health)

    def unsaid(self, uplink: str) -> frozenset[str]:
        """Return the keys of `METERED_PACE` that nobody has set for this uplink; none when it is not metered."""
        link = self.uplinks[uplink]
        if not link.metered:
            return frozenset()
        said = self.health.model_fields_set
        return frozenset(k for k in METERED_PACE if k not in said and getattr(link.health, k) is None)

    def weight_of(self, uplink: str) -> int:
        """Return an uplink's weight: as written, else its down bandwidth in Mbit/s (at least 1), else 1."""
        link = self.uplinks[uplink]
        if link.weight is not None:
            return link.weight
        return max(1, round(link.bandwidth.down / 1e6)) if link.bandwidth else 1

    def resolved_policies(self) -> dict[str, Policy]:
        """Return every policy by name; `default` is first, and made when the file does not have it.

        The made one has the unmetered uplinks as its first tier and the metered ones as its second, in file
        order and whether enabled or not; an empty tier is left out.
        """
        written = self.policies.get(DEFAULT_POLICY)
        return {DEFAULT_POLICY: written or self._made_default, **self.policies}

    def policy_for(self, rule: SteeringRule) -> Policy:
        """Return what a rule without an action means.

        ``uplink = X`` prefers X, with the policy `default` behind it; with ``only = [X, …]`` alone those uplinks share,
        and no other uplink ever serves.
        """
        if rule.policy is None and rule.uplink is None:
            return Policy(tiers=(tuple(Member(uplink=name) for name in rule.only),))
        policy = self.resolved_policies()[rule.policy] if rule.policy else self._preferring(str(rule.uplink))
        if not rule.only:
            return policy
        tiers = (tuple(m for m in tier if m.uplink in rule.only) for tier in policy.tiers)
        # What may leave by these uplinks only must not fall to main either.
        resort = "unreachable" if policy.last_resort in ("main", "throw") else policy.last_resort
        return policy.model_copy(update={"tiers": tuple(t for t in tiers if t), "last_resort": resort})

    def _preferring(self, uplink: str) -> Policy:
        default = self.policies.get(DEFAULT_POLICY) or self._made_default
        rest = (tuple(m for m in tier if m.uplink != uplink) for tier in default.tiers)
        tiers = ((Member(uplink=uplink),), *(tier for tier in rest if tier))
        return default.model_copy(update={"tiers": tiers})

    @cached_property
    def _made_default(self) -> Policy:
        tiers = (
            tuple(Member(uplink=name) for name, link in self.uplinks.items() if link.metered is metered)
            for metered in (False, True)
        )
        return Policy(tiers=tuple(tier for tier in tiers if tier))


def merged_health(general: HealthSettings, own: HealthOverrides) -> HealthSettings:
    """Return `general` with every key that `own` sets; most uplinks set none, and share it."""
    if not own.model_fields_set:
        return general
    return general.model_copy(update={key: value for key, value in own if value is not None})
