"""How the queues of an uplink are shaped."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import Field

from polywan.config.kinds.scalars import OneOf, Percent
from polywan.config.model.base import Model

ShapingAlgorithm: TypeAlias = Literal["cake", "fq_codel", "prio"]
LinkLayer: TypeAlias = Literal[
    "ethernet", "docsis", "pppoe-ptm", "bridged-ptm", "pppoe-llcsnap", "bridged-llcsnap", "raw"
]

IFB_PREFIX: Final = "pw-ifb"
"""Beginning of the names of our ifb devices, which packets that come in by an uplink pass."""

DEFAULT_LINK: Final = "ethernet"
"""What an uplink's `link` is when nobody sets it."""


class Shaping(Model):
    """Queues of this uplink, in both directions; an empty table shapes it with the defaults. Needs `bandwidth`."""

    algorithm: Annotated[ShapingAlgorithm, OneOf(get_args(ShapingAlgorithm))] = Field(
        default="cake",
        description='What shares the link: "cake" (first among hosts, then among their connections), "fq_codel" '
        '(among connections, behind htb) or "prio" (three bands by DSCP, each with its own fq_codel, behind htb). '
        'Default "cake": it knows the hosts behind NAT, and what a packet takes on the wire.',
    )
    share: Annotated[float, Percent(least=0.5)] = Field(
        default=0.95,
        description='Part of `bandwidth` that is used, in both directions. Default "95%": packets wait in the '
        "slowest queue of their way, and that has to be this one and not the modem's. Lower it when `bandwidth` is "
        "more than the line carries.",
    )
    link: Annotated[LinkLayer, OneOf(get_args(LinkLayer))] | None = Field(
        default=None,
        description='What the line adds to each packet, for the algorithm "cake": "ethernet" (fibre, or unknown), '
        '"docsis" (cable), "pppoe-ptm" and "bridged-ptm" (VDSL with and without PPPoE), "pppoe-llcsnap" and '
        '"bridged-llcsnap" (ADSL), "raw" (nothing). Default "ethernet", 38 bytes: enough for every line but ADSL, '
        "which sends cells.",
    )
