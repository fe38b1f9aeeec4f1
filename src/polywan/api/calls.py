"""Every call of the control socket, once: the daemon's routes and what clients send are made from this table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from polywan.api.affinity import Affinity, Forgotten
from polywan.api.document import Document
from polywan.api.events import Events, LinkEvent
from polywan.api.flows import Flows
from polywan.api.requests import (
    DrainUplink,
    Nothing,
    OfClients,
    OfEvents,
    OfIncidents,
    OfMeasurements,
    OfMonth,
    OfOrder,
    OfPast,
    OfPolicy,
    OfSession,
    OfSpan,
    OfTrial,
    OfUplink,
    ToReload,
    ToTry,
    What,
    WhatToPlan,
    WhomToForget,
    Words,
)
from polywan.api.running import Planned, Reloaded, Removed, Shown
from polywan.api.status import Status
from polywan.api.trials import PastConfigurations, SessionPath, Texts, TrialState
from polywan.api.uplinks import UplinkChanged, UplinkReport, ViaGroup
from polywan.api.views.clients import Clients
from polywan.api.views.effects import OrderEffect
from polywan.api.views.measurements import Availability, Incidents, Measurements, Volumes
from polywan.api.views.pending import PendingConfiguration
from polywan.api.views.quota import QuotaChanged, SetQuota
from polywan.api.views.stream import Change, StreamSample
from polywan.api.why import Explanation

Right: TypeAlias = Literal["read", "act", "manage"]

Asked = TypeVar("Asked", bound=Document)
Answered = TypeVar("Answered", bound=Document)


NO_WORDS: Final[Mapping[str, str]] = MappingProxyType({})

OF_WHY: Final = MappingProxyType(
    {
        "from": "client's address; without it, or with box, this machine",
        "to": "ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; never without",
        "protocol": "tcp, udp, icmp, another name, or a number",
        "source_port": "0 to 65535",
        "in_interface": "device by which it arrives",
        "user": "number of the local user",
        "group": "number of the local group",
        "cgroup": "path of the control group below /sys/fs/cgroup",
        "mac": "client's hardware address",
        "dscp": "name or number",
        "mark": "fwmark that the packet has already",
        "at": "when: Unix seconds, or ISO 8601 with its offset",
        "flow": "with any text: connections that are tracked, too",
    }
)
OF_FLOWS: Final = MappingProxyType(
    {
        "uplink": "name, other or probe",
        "client": "address or network",
        "to": "address or network of the destination",
        "port": "the destination's, 0 to 65535",
        "proto": "tcp, udp, icmp, another name, or a number",
        "find": "part of an address, port, state, protocol or uplink",
        "sort": "bytes, age, client or uplink; needs a limit",
        "limit": "how many are listed",
        "offset": "how many are left out before; asks for a page, which may be some seconds old",
    }
)
"""What may be said in `Words`; the core reads it."""


class Call(Generic[Asked, Answered]):
    """One call.

    Attributes:
        method: "GET" for what only tells, "POST" for what changes something or makes the daemon work.
        path: with the names of fields that stand in it, as starlette writes them.
        asked: what the client says: fields that are not in the path are words of the query.
        answer: what the daemon answers.
        body: the fields are a JSON object in the body instead.
        right: "read" is for all who may connect, "act" for the user of the page as well as for root and the daemon's
            user, "manage" for these two alone.
        words: of a question in `Words`, what each may say.
    """

    def __init__(
        self,
        method: Literal["GET", "POST"],
        path: str,
        asked: type[Asked],
        answer: type[Answered],
        *,
        body: bool = False,
        right: Right | None = None,
        words: Mapping[str, str] = NO_WORDS,
    ) -> None:
        self.method = method
        self.path = path
        self.asked = asked
        self.answer = answer
        self.body = body
        self.right: Right = right or ("read" if method == "GET" else "manage")
        self.words = words


class Stream(Generic[Asked]):
    """A call for those who may read that is answered with events for as long as somebody listens.

    Attributes:
        path: as of a call.
        asked: what the client says, as words of the query.
        events: what each event carries, by its name.
    """

    def __init__(self, path: str, asked: type[Asked], events: Mapping[str, type[Document]]) -> None:
        self.path = path
        self.asked = asked
        self.events = events


STATUS: Final = Call("GET", "/v1/status", Nothing, Status)
WHY: Final = Call("GET", "/v1/why", Words, Explanation, words=OF_WHY)
FLOWS: Final = Call("GET", "/v1/flows", Words, Flows, words=OF_FLOWS)
JOURNAL: Final = Call("GET", "/v1/events", OfEvents, Events)
MEASURED: Final = Call("GET", "/v1/measurements", OfMeasurements, Measurements)
AVAILABILITY: Final = Call("GET", "/v1/availability", OfSpan, Availability)
INCIDENTS: Final = Call("GET", "/v1/incidents", OfIncidents, Incidents)
VOLUMES: Final = Call("GET", "/v1/volumes", OfMonth, Volumes)
AFFINITY: Final = Call("GET", "/v1/affinity", OfPolicy, Affinity)
SHOW: Final = Call("GET", "/v1/show/{what}", What, Shown)
CLIENT_TOTALS: Final = Call("GET", "/v1/clients", OfClients, Clients)
EFFECT: Final = Call("GET", "/v1/uplinks/{name:path}/effect", OfOrder, OrderEffect)
PENDING: Final = Call("GET", "/v1/pending", Nothing, PendingConfiguration)
CLEAR_AFFINITY: Final = Call("POST", "/v1/affinity/clear", WhomToForget, Forgotten)
DISABLE: Final = Call("POST", "/v1/uplinks/{name:path}/disable", OfUplink, UplinkChanged, right="act")
DRAIN: Final = Call("POST", "/v1/uplinks/{name:path}/drain", DrainUplink, UplinkChanged, right="act")
ENABLE: Final = Call("POST", "/v1/uplinks/{name:path}/enable", OfUplink, UplinkChanged, right="act")
TEST: Final = Call("POST", "/v1/uplinks/{name:path}/test", OfUplink, UplinkReport, right="act")
QUOTA: Final = Call("POST", "/v1/uplinks/{name:path}/quota", SetQuota, QuotaChanged, right="act")
EXEC_VIA: Final = Call("POST", "/v1/via/{name:path}", OfUplink, ViaGroup)
PLAN: Final = Call("POST", "/v1/plan", WhatToPlan, Planned, body=True, right="act")
RELOAD: Final = Call("POST", "/v1/reload", ToReload, Reloaded)
TRIAL: Final = Call("GET", "/v1/trial", Nothing, TrialState)
TRY: Final = Call("POST", "/v1/trial", ToTry, Reloaded, body=True)
CONFIRM: Final = Call("POST", "/v1/trial/confirm", OfTrial, TrialState, body=True)
ROLL_BACK: Final = Call("POST", "/v1/trial/rollback", OfTrial, TrialState, body=True)
HISTORY: Final = Call("GET", "/v1/history", Nothing, PastConfigurations)
PAST_TEXTS: Final = Call("POST", "/v1/history/{number}", OfPast, Texts)
SESSION: Final = Call("POST", "/v1/session", OfSession, SessionPath, body=True)
DOWN: Final = Call("POST", "/v1/down", Nothing, Removed)

CALLS: Final[tuple[Call[Any, Any], ...]] = (
    STATUS,
    WHY,
    FLOWS,
    JOURNAL,
    MEASURED,
    AVAILABILITY,
    INCIDENTS,
    VOLUMES,
    AFFINITY,
    SHOW,
    CLIENT_TOTALS,
    EFFECT,
    PENDING,
    CLEAR_AFFINITY,
    DISABLE,
    DRAIN,
    ENABLE,
    TEST,
    QUOTA,
    EXEC_VIA,
    PLAN,
    RELOAD,
    TRIAL,
    TRY,
    CONFIRM,
    ROLL_BACK,
    HISTORY,
    PAST_TEXTS,
    SESSION,
    DOWN,
)
"""All of them; a test holds the daemon to a route for each, and to their recorded schemas."""

LIVE: Final = Stream(
    "/v1/stream", Nothing, {"snapshot": Status, "change": Change, "sample": StreamSample, "entry": LinkEvent}
)

STREAMS: Final[tuple[Stream[Any], ...]] = (LIVE,)
"""All streams."""

OPENAPI: Final = "/v1/openapi"
"""Path of the OpenAPI document (`polywan/api/openapi.py`), for those who may read."""
