"""What clients ask with (parts of the path, words of the query, or one JSON object), and what a refusal says."""

from collections.abc import Mapping

from polywan.api.document import Document


class Nothing(Document):
    """The call says all."""


class Words(Document):
    """Words of the query that the core reads itself: what may be said is in `why` and `flow_list` of the core."""

    words: Mapping[str, str]


class What(Document):
    """What is to be shown: "nft", "routes", "rules", "config" or "dnsmasq"."""

    what: str


class OfUplink(Document):
    """An uplink, by its name."""

    name: str


class DrainUplink(Document):
    """An uplink, and the time that `drain` gives its connections, as "10m"; None for the default."""

    name: str
    deadline: str | None = None


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


class WhomToForget(Document):
    """Clients of an address or network, or with `all` = "true" every one; of a policy, or of all."""

    address: str | None = None
    all: str | None = None
    policy: str | None = None


class WhatToPlan(Document):
    """A configuration, the texts of its files by name, for a network namespace (`presence.namespace`)."""

    files: Mapping[str, str]
    namespace: str


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
