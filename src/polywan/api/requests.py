"""What clients ask with (parts of the path, words of the query, or one JSON object), and what a refusal says."""

from collections.abc import Mapping

from polywan.api.document import Document


class Nothing(Document):
    """The call says all."""


class Words(Document):
    """Words of the query that the core reads itself: what may be said is in `why` and `flow_list` of the core."""

    words: Mapping[str, str]


class What(Document):
    """What is to be shown: "nft", "routes", "rules", "config", "dnsmasq" or "openapi"."""

    what: str


class OfUplink(Document):
    """An uplink, by its name."""

    name: str


class DrainUplink(Document):
    """An uplink, and the time that `drain` gives its connections, as "10m"; None for the default."""

    name: str
    deadline: str | None = None


class OfOrder(Document):
    """An order to an uplink: "disable", "drain", "enable" or "test"; `deadline` as of `DrainUplink`."""

    name: str
    order: str | None = None
    deadline: str | None = None


class OfClients(Document):
    """How many clients are wanted, those that moved most first: 100 without a word, 1000 at most."""

    limit: str | None = None


class OfPolicy(Document):
    """A policy, by its name; None for all."""

    policy: str | None = None


class OfEvents(Document):
    """Entries of the journal, oldest first: the first 100 that fit, or without `since` and `after` the last 100.

    Attributes:
        uplink: of this uplink only.
        since: from that time on: "2h" for two hours ago, or a moment in ISO 8601, local without an offset.
        after: behind the entry of that number; `journal`: of the answer which has told that number.
        wait: seconds to wait for one when there is none; needs `after`.
    """

    uplink: str | None = None
    since: str | None = None
    after: str | None = None
    journal: str | None = None
    wait: str | None = None


class OfMeasurements(Document):
    """Measurements of a span: at most `points` intervals (300; 1000 at most) for each uplink.

    Attributes:
        uplink: of this uplink only.
        since, until: as `since` of `OfEvents`; without them the last hour, and up to now.
    """

    uplink: str | None = None
    since: str | None = None
    until: str | None = None
    points: str | None = None


class OfSpan(Document):
    """How far back: "24h" (or nothing) in half hours, "30d" in days of local time, or a month such as "2026-11"."""

    span: str | None = None


class OfIncidents(Document):
    """Incidents that touch a span: of an uplink or all; `since` (without it 30 days ago), `until`: as in `OfEvents`."""

    uplink: str | None = None
    since: str | None = None
    until: str | None = None


class OfMonth(Document):
    """A month of local time such as "2026-11"; without one, all that are known."""

    month: str | None = None


class WhomToForget(Document):
    """Clients of an address or network, or with `all` = "true" every one; of a policy, or of all."""

    address: str | None = None
    all: str | None = None
    policy: str | None = None


class WhatToPlan(Document):
    """A configuration, the texts of its files by name.

    Attributes:
        namespace: the network namespace that is meant (`presence.namespace`); empty for the daemon's, whichever it is.
    """

    files: Mapping[str, str]
    namespace: str = ""


class ToReload(Document):
    """A reload.

    Attributes:
        by: who asks, as root's client says; without it the user of the connection.
        session: connection that must not be cut, as SSH_CONNECTION has it (ssh(1)).
        force: "true" does it even if that is cut.
        how: what `history` calls it: "reload" or "rollback".
    """

    by: str | None = None
    session: str | None = None
    force: str | None = None
    how: str | None = None


class ToTry(Document):
    """A configuration that is to be in force for a trial: the texts of its files by their names below its directory.

    Attributes:
        id: names the trial.
        by: user who tries it.
        until: when it ends, ISO 8601; whoever asks ends it.
        seconds: time until then. The daemon ends it itself some seconds later, should everybody else be gone.
    """

    id: str
    by: str
    until: str
    seconds: float
    files: Mapping[str, str]


class OfTrial(Document):
    """A trial that is to end.

    Attributes:
        id: names it.
        by: user who wants that.
        reason: why it is not confirmed.
    """

    id: str
    by: str
    reason: str | None = None


class OfPast(Document):
    """A configuration of `history`, by its number."""

    number: str


class OfSession(Document):
    """A connection to this box, as SSH_CONNECTION has it (ssh(1))."""

    session: str


class ProblemFound(Document):
    """One problem of a configuration: file and line, key, what is wrong, and what might have been meant."""

    where: str
    key: str
    message: str
    hint: str


class Refusal(Document):
    """Why there is no answer, for people; `problems` where a configuration is bad."""

    error: str | None = None
    problems: tuple[ProblemFound, ...] | None = None
