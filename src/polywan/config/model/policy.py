"""Policies: which uplinks serve together, how connections are dealt out, and the last resort when none can."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from polywan.config.faults import closest, shown
from polywan.config.kinds.scalars import Duration, Kind, OneOf, rejection
from polywan.config.model.base import NAME, Model, Name, Seconds, Weight

Algorithm: TypeAlias = Literal[
    "weighted",
    "random",
    "source",
    "source-destination",
    "connection",
    "source-parity",
    "multipath",
    "per-packet",
]
OnDown: TypeAlias = Literal["reset", "move", "keep"]
OnUpWord: TypeAlias = Literal["stay", "move-when-idle", "move"]
AffinityKey: TypeAlias = Literal["source", "source-destination"]
LastResort: TypeAlias = Literal["unreachable", "prohibit", "blackhole", "main", "throw"]


class Member(Model):
    """An uplink's place in a tier; the weight defaults to the uplink's own."""

    uplink: Name = Field(description="Name of the uplink. No default.")
    weight: Weight | None = Field(
        default=None,
        description="Share within this tier, 1 to 1000. Default: the uplink's own weight, which is right "
        "for most policies.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, raw: object) -> object:
        if isinstance(raw, str):
            return {"uplink": raw}
        if not isinstance(raw, dict | Member):
            raise rejection(f"expected an uplink's name or {{uplink = NAME, weight = NUMBER}}, got {shown(raw)}")
        return raw


class TierList(Kind):
    """Around the tiers: lists of lists only, as a flat list could mean sharing as well as failing over."""

    __slots__ = ()

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema: dict[str, Any] = handler(core) | self.schema
        schema["items"]["minItems"] = 1
        schema["items"]["items"] = {"anyOf": [NAME.schema, schema["items"]["items"]]}
        return schema

    def _expected(self) -> str:
        return 'a list of tiers, each a list of uplinks, such as [["fibre", "dsl"], ["lte"]]'

    def _schema(self) -> dict[str, Any]:
        return {"type": "array", "minItems": 1}

    def _parse(self, raw: object) -> object:
        if not isinstance(raw, list | tuple) or not raw:
            raise self.refusal(raw)
        for place, tier in enumerate(raw):
            if isinstance(tier, str | dict):
                raise rejection(
                    f"expected {self.expected}, got {shown(tier)} in place of a tier",
                    'in [["a", "b"]] the two share; in [["a"], ["b"]] the second stands by',
                    (place,),
                )
            if not isinstance(tier, list | tuple) or not tier:
                raise rejection(f"expected a tier with at least one uplink, got {shown(tier)}", "", (place,))
        return raw


class Affinity(Model):
    """Keep a client on its first uplink."""

    key: Annotated[AffinityKey, OneOf(get_args(AffinityKey))] = Field(
        default="source",
        description='What is kept on an uplink: "source", one client whatever it talks to, or '
        '"source-destination", a client and a server together. Default source: sites that use several servers at '
        "once (banks, games, chats) see one address. IPv6 pairs are kept by a hash, without a timeout.",
    )
    timeout: Annotated[Seconds, Duration(1, 604800)] = Field(
        default=600.0,
        description="How long a client that opens no connection keeps its uplink; each new connection restarts it. "
        "Default 10m, known from mwan3.",
    )


class Drain(Model):
    """Leave an uplink by a deadline."""

    drain: Annotated[Seconds, Duration(0, 86400)] = Field(
        description="How long connections may stay on an uplink of a lower tier once a better one serves again; "
        "the remaining ones are then ended. No default.",
    )


class OnUp(Kind):
    """A word, or a table with a deadline."""

    __slots__ = ()
    words: ClassVar[tuple[str, ...]] = get_args(OnUpWord)

    def _expected(self) -> str:
        return '"stay", "move-when-idle", "move" or {drain = "10m"}'

    def _schema(self) -> dict[str, Any]:
        return {"anyOf": [OneOf(self.words).schema, Drain.model_json_schema(by_alias=True)]}

    def _parse(self, raw: object) -> str | Drain:
        if isinstance(raw, Drain) or (isinstance(raw, str) and raw in self.words):
            return raw
        if isinstance(raw, dict) and set(raw) == {"drain"}:
            try:
                return Drain.model_construct(drain=Duration(0, 86400).parse(raw["drain"]))
            except PydanticCustomError as error:
                context = error.context or {}
                raise rejection(context["message"], context["hint"], ("drain",)) from error
        raise self.refusal(raw, closest(raw, self.words) if isinstance(raw, str) else "")


class Policy(Model):
    """Which uplinks serve a class of connections: the first tier with a healthy member."""

    algorithm: Annotated[Algorithm, OneOf(get_args(Algorithm))] = Field(
        default="weighted",
        description='How new connections are spread over a tier: "weighted" deals them out in turn by weight, '
        "exactly and interleaved. It is the default, because shares then hold for a handful of connections as well. "
        '"random" draws by weight. "source", "source-destination" and "connection" choose by a hash of the client, '
        "of client and server, or of the whole address and port tuple: the same key gets the same uplink, and an "
        'uplink that comes or goes moves only its own share. "source-parity" gives even source addresses to the '
        'first member of the tier and odd ones to the second; each tier has two. "multipath" lets the kernel choose '
        '(a resilient nexthop group, ip-nexthop(8)). "per-packet" deals out single packets of one connection; it '
        'needs uplinks that do not translate addresses (`nat = "none"`), such as tunnels to one far end.',
    )
    tiers: Annotated[tuple[tuple[Member, ...], ...], TierList()] = Field(
        description='Uplinks in order of preference, such as [["fibre", "dsl"], ["lte"]]: members of a tier share, '
        "the next tier stands by until no member of the one before is up. A member is a name or {uplink = NAME, "
        "weight = NUMBER}. No default; the policy `default` exists without being written, with the unmetered "
        "uplinks as its first tier and the metered ones as its second.",
    )
    last_resort: Annotated[LastResort, OneOf(get_args(LastResort))] = Field(
        default="unreachable",
        description='What happens to new connections when no uplink of any tier is up: "unreachable" and '
        '"prohibit" answer with that ICMP message, "blackhole" drops, "main" (or "throw", its name in ip-route(8)) '
        'lets the main table decide. Default "unreachable": programs fail at once instead of waiting, and nothing '
        "leaves where the policy did not allow it.",
    )
    on_down: Annotated[OnDown, OneOf(get_args(OnDown))] = Field(
        default="reset",
        description='What happens to connections of an uplink that is lost: "reset" ends TCP at once, so that '
        'programs reconnect, and lets everything else choose again; "move" does only the latter; "keep" leaves all '
        'of them, for links whose return is worth waiting for. Default "reset": a connection whose address is gone '
        "cannot continue.",
    )
    on_up: Annotated[OnUpWord | Drain, OnUp()] | None = Field(
        default=None,
        description='What happens to connections on a lower tier when a better one serves again: "stay", '
        '"move-when-idle" (non-TCP connections move in their first pause), "move" (all but TCP at once), or {drain '
        '= "10m"} (like move-when-idle, and everything that remains is ended at the deadline). Default: {drain = '
        '"10m"} for metered uplinks, whose volume costs money, and move-when-idle for others, so that calls and '
        "tunnels do return.",
    )
    affinity: Affinity | None = Field(
        default=None,
        description="Keep a client on the uplink that its first connection was given, as long as it goes on "
        "opening connections and the uplink is up; an empty table, {}, means by source and for 10 minutes. Works "
        'with "weighted", "random" and "connection"; the other algorithms already keep a client, or cannot. '
        "Default: the uplink is chosen for every connection, which spreads load best.",
    )
