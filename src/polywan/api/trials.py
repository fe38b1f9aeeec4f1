"""Configurations on trial, and those that were in force: `polywan try` and `history`. Fields are only added."""

from collections.abc import Mapping

from polywan.api.document import Document


class Trial(Document):
    """A configuration on trial.

    Attributes:
        id: names it.
        by: user who tries it.
        since, until: ISO 8601 in UTC; `until` is when it ends unless it is confirmed.
    """

    id: str
    by: str
    since: str
    until: str


class EndedTrial(Document):
    """The last trial that ended.

    Attributes:
        id: names it.
        confirmed: it is in force for good; false: the configuration before it is.
        by: user who confirmed it or ended it; "polywan" where that was no user.
        at: ISO 8601 in UTC.
        reason: why it was ended, for people; empty when it was confirmed.
    """

    id: str
    confirmed: bool
    by: str
    at: str
    reason: str


class TrialState(Document):
    """What is on trial, and which daemon answers.

    Attributes:
        pending: the trial under way; null without one.
        last: the one that ended last, as far as this daemon knows.
        file: the configuration's file, as the daemon's mount namespace has it.
        namespace: the daemon's network namespace (`presence.namespace`).
        digest: tells the texts in force from others.
    """

    pending: Trial | None
    last: EndedTrial | None
    file: str
    namespace: str
    digest: str


class Past(Document):
    """A configuration that was in force, or is.

    Attributes:
        number: 0 is in force, 1 the one before; as `polywan rollback` takes it.
        time: since when, ISO 8601 in UTC.
        user: who asked for it; "polywan" when nobody did.
        how: "start", "reload", "trial" or "rollback".
        changes: what was different from the one before it, for people.
        kept: its text can be had.
    """

    number: int
    time: str
    user: str
    how: str
    changes: tuple[str, ...]
    kept: bool


class PastConfigurations(Document):
    """The last configurations in force, newest first.

    Attributes:
        schema: version of the document.
        problem: why they are not on disk, or not all of them, for people; empty when they are.
    """

    schema: int
    entries: tuple[Past, ...]
    problem: str


class Texts(Document):
    """The texts of a configuration's files, by their names below its directory; each is UTF-8 in Base64 (RFC 4648).

    Whoever reads an answer escapes what is not printable, and a file has to come back as it was.
    """

    files: Mapping[str, str]


class SessionPath(Document):
    """How the packets of a connection to this box leave.

    Attributes:
        uplink: by which uplink; null when by none.
        interface: device, as the kernel says; null when it says none.
        problem: why they would not leave, for people; empty when they do.
    """

    uplink: str | None
    interface: str | None
    problem: str
