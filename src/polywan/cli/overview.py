"""What `polywan status` prints: what is wrong, one line each; a table of all uplinks; then what else is to know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import click

from polywan.api.status import ChoiceStatus, FamilyStatus, PolicyStatus, Status, UplinkStatus
from polywan.cli.fitting import COLUMN_GAP, CUT, Column, shortened, table
from polywan.cli.shares import percents
from polywan.cli.units import age, duration, milliseconds, rate, seconds_since, size
from polywan.core.words import by_family, counted, lasted

COLOURS: Final = {
    "up": "green",
    "degraded": "yellow",
    "busy": "yellow",
    "blocked": "yellow",
    "draining": "yellow",
    "down": "red",
    "missing": "red",
    "disabled": "bright_black",
    "drained": "bright_black",
}
EXPENDABLE: Final = ("loss", "connections", "rtt", "for", "tx", "rx")
"""Columns that a narrow terminal does without, the first one first."""

FAMILY_TITLES: Final = {"ipv4": "IPv4", "ipv6": "IPv6"}
MOST_LINES: Final = 8
"""Lines about uplinks before the rest is only counted: the table below has all of them."""

MOST_REPAIRS: Final = 3

DIRECT: Final = "uplink_"
"""How the names of policies begin that are made for rules with ``uplink = NAME``."""


def text(status: Status, width: int | None = None) -> str:
    """Return the status for people, no line wider than `width`; None: as wide as it needs."""
    wrong = list(problems(status))
    alarms = [click.style(shortened(line, width), fg=colour) for line, colour in wrong]
    notes = list(_notes(status))
    if any(CUT in shortened(line, width) for line in (*(line for line, _ in wrong), *notes)):
        notes.append(f"{CUT}: cut; the full text: polywan status NAME, or polywan status | cat")
    lines = [*alarms, *([""] if alarms else []), *_table(status, width)]
    return "\n".join([*lines, *(shortened(line, width) for line in notes)])


def word(uplink: UplinkStatus) -> str:
    """Return an uplink's state in one word, or two: also whether it is busy, stands by, or is blocked for its quota."""
    state = uplink.state
    if state == "degraded" and _busy(uplink):
        return "busy"
    if state == "up" and blocked(uplink):
        return "blocked"
    return "standing by" if state == "up" and uplink.standby else state


def blocked(uplink: UplinkStatus) -> bool:
    """True for an uplink that gets no new connections because of its quota."""
    return uplink.quota is not None and uplink.quota.action == "block"


def reason(uplink: UplinkStatus) -> str:
    """Return why an uplink is not up, each family by itself only where they differ."""
    if word(uplink) == "busy":
        poor = [known.reason for known in uplink.families.values() if known.state != "up"]
        return (poor or [uplink.reason])[0].removeprefix("busy: ")
    families = {FAMILY_TITLES[f]: known for f, known in uplink.families.items() if known.state != "up"}
    if not families or uplink.state not in ("down", "degraded"):
        return uplink.reason
    phrase = {family: phrase_of(known) for family, known in families.items()}
    if uplink.state == "down":
        return by_family(phrase)
    parts = {
        family: f"{family} down: {phrase[family]}" if known.state == "down" else phrase[family]
        for family, known in families.items()
    }
    if len(families) == len(uplink.families):
        return by_family(parts)
    return "; ".join(said if family in said else f"{family}: {said}" for family, said in parts.items())


def phrase_of(known: FamilyStatus) -> str:
    """Return why one family is as it is: for how long it is held, when it answers again."""
    held = known.held_for
    return f"answers again, hold-down for another {_rounded(held)}" if held else known.reason


def _rounded(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 120 else duration(seconds)


def _busy(uplink: UplinkStatus) -> bool:
    poor = [known for known in uplink.families.values() if known.state != "up"]
    if not poor:
        return uplink.reason.startswith("busy")
    return all(known.state == "degraded" and known.reason.startswith("busy") for known in poor)


def problems(status: Status, now: datetime | None = None) -> Iterator[tuple[str, str]]:
    """Yield lines about what is wrong, the worst first, with their colours; times are by the clock or until `now`."""
    for states, colour in ((("down", "missing"), "red"), (("degraded",), "yellow")):
        found = [uplink for uplink in status.uplinks if uplink.state in states]
        for uplink in found if len(found) <= MOST_LINES else found[: MOST_LINES - 1]:
            aside = ", standing by" if uplink.standby else ", blocked" if blocked(uplink) else ""
            yield f"{uplink.name}: {word(uplink)} for {age(uplink.since, now)}{aside}: {reason(uplink)}", colour
        if len(found) > MOST_LINES:
            yield f"{len(found) - MOST_LINES + 1} more uplinks are {' or '.join(states)}", colour
    for warning in _merged(status.warnings):
        yield f"warning: {warning}", "yellow"


def _merged(warnings: Sequence[str]) -> list[str]:
    """Return warnings without the family where both have the same one."""
    bare = [warning.replace(" (IPv4)", "").replace(" (IPv6)", "") for warning in warnings]
    return list(dict.fromkeys(b if bare.count(b) > 1 else w for b, w in zip(bare, warnings, strict=True)))


def _table(status: Status, width: int | None) -> list[str]:
    uplinks = status.uplinks
    if not uplinks:
        return ["no uplinks yet"]
    columns = {
        "name": Column("UPLINK", [u.name for u in uplinks]),
        "state": Column("STATE", [word(u) for u in uplinks]),
        "for": Column("FOR", [age(u.since) for u in uplinks]),
        **_shares(status),
        "rtt": Column("RTT", [milliseconds(u.rtt_ms) for u in uplinks], number=True),
        "loss": Column("LOSS", [_percent(u.loss) for u in uplinks], number=True),
        "connections": Column("CONNS", [str(u.connections) for u in uplinks], number=True),
        "rx": Column("DOWN", [rate(u.rx_bps) if u.counted else "-" for u in uplinks], number=True),
        "tx": Column("UP", [rate(u.tx_bps) if u.counted else "-" for u in uplinks], number=True),
    }
    heading, *rows = table(columns, EXPENDABLE, width)
    lines = [COLUMN_GAP.join(heading).rstrip()]
    for uplink, cells in zip(uplinks, rows, strict=True):
        cells[1] = click.style(cells[1], fg=COLOURS.get(word(uplink)))
        lines.append(COLUMN_GAP.join(cells).rstrip())
    return lines


def _shares(status: Status) -> dict[str, Column]:
    """Shares of new connections in policy `default`: one column, or one for each family where they differ."""
    uplinks = status.uplinks
    names = [policy.name for policy in status.policies]
    heading = "SHARE" if names in ([], ["default"]) else "OF DEFAULT"
    families = dict.fromkeys(family for uplink in uplinks for family in uplink.shares)
    shown = {f: percents([u.shares.get(f, 0.0) for u in uplinks]) for f in families}
    if not shown:
        shown = {"": percents([u.share for u in uplinks])}
    if len({tuple(cells) for cells in shown.values()}) == 1:
        return {"share": Column(heading, next(iter(shown.values())), number=True)}
    heading = heading.removeprefix("OF ")
    return {
        family: Column(f"{heading} {FAMILY_TITLES[family][2:]}", cells, number=True) for family, cells in shown.items()
    }


def _percent(part: float | None) -> str:
    return "-" if part is None else f"{100 * part:.0f} %"


def _notes(status: Status) -> Iterator[str]:
    for uplink in status.uplinks:
        if uplink.state in ("disabled", "draining", "drained"):
            yield f"{uplink.name}: {uplink.reason}{drain_note(uplink)}"
        elif uplink.drain:
            yield f"{uplink.name}: a better uplink serves again{drain_note(uplink)}"
        yield from _quota(uplink)
        if uplink.slow_start is not None:
            yield f"{uplink.name}: slow start: {_percent(uplink.slow_start)} of its weight by now"
    if phrase := [_outages(uplink) for uplink in status.uplinks if uplink.outages_today]:
        yield f"outages today: {', '.join(phrase)}"
    for policy in status.policies:
        if policy.name != "default" and not _plain(policy):
            yield f"{policy.title}: {served(policy)}"
    for uplink in status.uplinks:
        if uplink.metered:
            yield from volume(uplink)
    drift = status.drift
    if status.warnings:
        # Warnings are what the daemon knows without looking for it: nothing is searched for the sake of this line.
        yield "run `polywan doctor`: it shows the evidence, and how to fix it"
    yield from (f"repaired: {line}" for line in drift[:MOST_REPAIRS])
    if len(drift) > MOST_REPAIRS:
        yield f"repaired: {len(drift) - MOST_REPAIRS} more (polywan status --json)"


def _quota(uplink: UplinkStatus) -> Iterator[str]:
    if uplink.quota is not None and uplink.quota.state != "within":
        yield f"{uplink.name}: quota: {uplink.quota.text}"


def _outages(uplink: UplinkStatus) -> str:
    last = uplink.last_outage_s
    return f"{uplink.name} {uplink.outages_today}" + (f" (the last {lasted(last)})" if last is not None else "")


def _plain(policy: PolicyStatus) -> bool:
    """True for what a rule with ``uplink = NAME`` made, and that uplink serves it: nothing to tell."""
    if not policy.direct:
        return False
    wanted = policy.name.removeprefix(DIRECT)
    return all([m.uplink for m in choice.members] == [wanted] for choice in policy.families.values())


def served(policy: PolicyStatus) -> str:
    """Return who serves a policy with which shares, each family by itself only where they differ."""
    return by_family({FAMILY_TITLES[family]: _members(choice) for family, choice in policy.families.items()})


def _members(choice: ChoiceStatus) -> str:
    members = choice.members
    phrase = zip(members, percents([m.share for m in members]), strict=True)
    return ", ".join(f"{m.uplink} {percent}" for m, percent in phrase) or choice.reason


def drain_note(uplink: UplinkStatus) -> str:
    """Return what is to be said of the connections of an uplink that is being left."""
    drain_state = uplink.drain
    if drain_state is None:
        return ""
    number = uplink.connections
    phrase = f"; {counted(number, 'connection')} {'remains' if number == 1 else 'remain'}"
    if drain_state.by_operator or drain_state.deadline is None:
        return phrase
    return f"{phrase}, ended in {duration(max(0.0, -seconds_since(drain_state.deadline)))}"


def volume(uplink: UplinkStatus) -> list[str]:
    """Return what probing costs, where volume costs money."""
    spent, month = uplink.probe_bytes, uplink.probe_bytes_month
    if not spent:
        return []
    about = f", about {size(month)} a month" if month is not None else ""
    return [f"{uplink.name}: probes: {size(spent)} since start{about}"]
