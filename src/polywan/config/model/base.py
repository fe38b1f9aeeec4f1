"""What the models share: their base, and the names of fields' types."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict

from polywan.config.kinds.addresses import Device, OneOrMany
from polywan.config.kinds.scalars import OneOf, Text, Whole, Word

FamilyName: TypeAlias = Literal["ipv4", "ipv6"]
Seconds: TypeAlias = float

NAME: Final = Text("[A-Za-z][A-Za-z0-9_-]{0,30}", "a name: a letter, then up to 30 letters, digits, _ or -")

Name: TypeAlias = Annotated[str, NAME]
Interface: TypeAlias = Annotated[str, Device()]
Weight: TypeAlias = Annotated[int, Whole(1, 1000)]
Command: TypeAlias = Annotated[tuple[Annotated[str, Word()], ...], OneOrMany(distinct=False)]
FamilyField: TypeAlias = Annotated[FamilyName, OneOf(get_args(FamilyName))]


class Model(BaseModel):
    """Base: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid")
