"""The quotas of all uplinks together: what looks and entries make of them, what the log is logged, when to write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from polywan.config.model.quota import Quota
from polywan.core.quota.counting import Seen
from polywan.core.quota.limits import Level, Quotas, level, restrictions
from polywan.core.quota.report import brief
from polywan.core.quota.usage import Usage, counted, followed, read, refilled
from polywan.core.resolved import Resolved
from polywan.core.words import size

MOST_USAGES: Final = 256
"""Uplinks whose use is kept although they have no quota now: more than there can be uplinks."""

SAVED: Final = 8.0
"""Seconds between two writes of what was counted: with a second between looks, a power cut loses ten at most."""

WORTH_SAVING: Final = 1 << 16
"""Bytes below which a write waits for `SAVED_RARELY`: probes alone must not wear out a flash disk."""

SAVED_RARELY: Final = 600.0

SAVED_SOON: Final = 1.0
"""Seconds after which a write is tried that cannot wait, or failed."""


class Topic(StrEnum):
    """What the log reports of quotas: a level that was reached, or an entry by hand."""

    WITHIN = "within"
    SOFT = "soft"
    HARD = "hard"
    READING = "reading"
    BOUGHT = "bought"


class News(NamedTuple):
    """Something about an uplink, for the log; limits also for the journal."""

    topic: Topic
    uplink: str
    text: str

    @property
    def warning(self) -> bool:
        """True for a limit that is passed."""
        return self.topic in (Topic.SOFT, Topic.HARD)


def configured(config: Resolved) -> dict[str, Quota]:
    """Return the quotas of the file, by uplink."""
    return {name: uplink.quota for name, uplink in config.uplinks.items() if uplink.quota is not None}


def applied(known: Quotas, config: Resolved, *, first: bool) -> Quotas:
    """Return what is known of quotas with another file in force; `first`: it is the daemon's first one."""
    quotas = configured(config)
    ours = {name: usage for name, usage in known.usages.items() if name in quotas}
    others = [(name, usage) for name, usage in known.usages.items() if name not in quotas]
    usages = {**dict(others[-MOST_USAGES:]), **ours}
    # What a daemon before has reported is no news at a start; a quota that comes back to the file is.
    logged = (
        {name: level(usage, quotas[name]) for name, usage in ours.items()}
        if first
        else {name: known.logged[name] for name in ours if name in known.logged}
    )
    return Quotas(usages=usages, restrictions=restrictions(quotas, usages), logged=logged)


def looked(known: Quotas, quotas: Mapping[str, Quota], seen: Mapping[str, Seen], unix: float, zone: tzinfo) -> Quotas:
    """Return what is known after a look at the counters, at a Unix time; `seen` lacks uplinks without a device."""
    found = {name: counted(known.usages.get(name), quota, seen.get(name), unix, zone) for name, quota in quotas.items()}
    return _with(known, quotas, found)


def entered(
    known: Quotas,
    quotas: Mapping[str, Quota],
    name: str,
    amounts: tuple[int | None, int | None],
    unix: float,
    zone: tzinfo,
) -> tuple[Quotas, tuple[News, ...]]:
    """Return what is known after an entry by hand, and what the log is logged of it.

    Args:
        known: what was known.
        quotas: those of the file.
        name: the uplink; an entry for one without a quota changes nothing.
        amounts: what the provider says was used, and what was bought, in bytes.
        unix: Unix seconds.
        zone: local time.
    """
    quota, (reading, bought) = quotas.get(name), amounts
    if quota is None:
        return known, ()
    usage, news = followed(known.usages.get(name), quota, unix, zone), []
    if reading is not None:
        text = f"the provider says {size(reading)} used; polywan has counted {size(usage.used)}"
        usage = read(usage, quota, reading, unix, zone)
        news.append(News(Topic.READING, name, text))
    if bought is not None:
        usage = refilled(usage, quota, bought, unix)
        text = f"{size(bought)} bought: {brief(usage, quota)}"
        news.append(News(Topic.BOUGHT, name, text))
    return _with(known, quotas, {name: usage}), tuple(news)


def passed(before: Quotas, after: Quotas, quotas: Mapping[str, Quota]) -> Iterator[News]:
    """Yield what the log is logged of limits that are passed now, or not any more."""
    for name, now in after.logged.items():
        if now is not before.logged.get(name, Level.WITHIN):
            yield News(Topic(now), name, brief(after.usages[name], quotas[name]))


def save_due(saved: Quotas, known: Quotas, since: float) -> bool:
    """Tell whether what is known is to be written now.

    Args:
        saved: what is on disk.
        known: what is known.
        since: seconds since the last write, or the last try.
    """
    if since < SAVED_SOON or saved.usages == known.usages:
        return False
    if since >= SAVED_RARELY or saved.restrictions != known.restrictions:
        return True
    return since >= SAVED and any(_news(saved.usages.get(name), usage) for name, usage in known.usages.items())


def _news(saved: Usage | None, usage: Usage) -> bool:
    if saved is None or saved.seen is None or usage.seen is None:
        return saved is None or saved.seen is not usage.seen
    # Of another device the next look has to know where it began.
    if (saved.begins, saved.reading_at, saved.bought) != (usage.begins, usage.reading_at, usage.bought):
        return True
    return saved.seen[:3] != usage.seen[:3] or abs(usage.used - saved.used) >= WORTH_SAVING


def _with(known: Quotas, quotas: Mapping[str, Quota], found: Mapping[str, Usage]) -> Quotas:
    usages = {**known.usages, **found}
    after = restrictions(quotas, usages)
    levels = {name: level(usages[name], quota) for name, quota in quotas.items() if name in usages}
    return Quotas(
        usages=usages,
        restrictions=known.restrictions if after == known.restrictions else after,
        logged=known.logged if levels == known.logged else levels,
    )
