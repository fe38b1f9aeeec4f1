"""How much an uplink may carry, and what happens when it has."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import Field

from polywan.config.kinds.scalars import OneOf, Whole
from polywan.config.kinds.volumes import PartOrVolume, Volume
from polywan.config.model.base import Model

QuotaAction: TypeAlias = Literal["keep", "less", "standby", "block"]
CountedBytes: TypeAlias = Literal["both", "down", "up"]

ACTIONS: Final[tuple[QuotaAction, ...]] = get_args(QuotaAction)
"""What may happen to an uplink, the mildest first."""

_Action: TypeAlias = Annotated[QuotaAction, OneOf(ACTIONS)]


class Quota(Model):
    """How much data this uplink may carry: `monthly` up to each billing day, or `prepaid` until you buy more."""

    monthly: Annotated[int, Volume()] | None = Field(
        default=None,
        description='Data of a billing period, such as "50GB"; a plain number is bytes. Default: none, since only your '
        "contract says it. Give this or `prepaid`.",
    )
    billing_day: Annotated[int, Whole(1, 31)] | None = Field(
        default=None,
        description="Day of the month on which a billing period begins, at midnight local time; in a month without "
        "that day it is the last one. For `monthly` only. Default 1: most contracts follow the calendar.",
    )
    prepaid: Annotated[int, Volume()] | None = Field(
        default=None,
        description='What is left of data that was bought in advance, such as "10GB", when polywan first sees this '
        "key. `polywan quota NAME --bought 10GB` adds what you buy later. Default: none. Give this or `monthly`.",
    )
    soft: Annotated[float | int, PartOrVolume()] = Field(
        default=0.9,
        description='Where `at_soft` begins: a share of what there is, or an amount such as "45GB". Default "90%": '
        "early enough that what is left lasts for some days as a reserve.",
    )
    at_soft: _Action = Field(
        default="less",
        description='What happens from the soft limit on: "keep" (only told), "less" (a tenth of its weight beside '
        'others), "standby" (new connections only while no other uplink of the policy is healthy) or "block" (no new '
        'connections at all). Connections that are open stay in each case. Default "less": the rest lasts longer, and '
        "the uplink is known to work when it is needed.",
    )
    at_hard: _Action = Field(
        default="standby",
        description="The same from the end of the quota on; it cannot be milder than `at_soft`. Default "
        '"standby": an expensive connection is better than none. Where each byte costs a fortune, use "block": then '
        "not even a kill switch (`only`) or a rule with `uplink` gives it a connection, and where no other uplink may "
        "serve, connections are refused.",
    )
    counts: Annotated[CountedBytes, OneOf(get_args(CountedBytes))] = Field(
        default="both",
        description='Which bytes count: "both", "down" (received) or "up" (sent). Default "both", as nearly all '
        "contracts do; some satellite and DSL contracts count what you receive only.",
    )
