"""What `polywan status NAME` prints: all that is known of one uplink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from polywan.api.status import FamilyStatus, LayerStatus, PolicyStatus, ShapingStatus, TargetStatus, UplinkStatus
from polywan.cli.overview import FAMILY_TITLES, blocked, drain_note, phrase_of, reason, volume, word
from polywan.cli.units import age, milliseconds, rate, size
from polywan.core.words import counted, lasted


def text(uplink: UplinkStatus, policies: Sequence[PolicyStatus], now: datetime | None = None) -> str:
    """Return what is known of an uplink, for people, by the clock or at `now`; policies are those of the status."""
    why = "" if uplink.state == "up" else f": {reason(uplink)}"
    lines = [
        f"{uplink.name} ({uplink.interface}): {word(uplink)} for {age(uplink.since, now)}{why}{drain_note(uplink)}"
    ]
    lines += _rows(_summary(uplink, policies))
    for family, known in uplink.families.items():
        said = known.state == "up" or phrase_of(known) in why
        message = "" if said else f": {phrase_of(known)}"
        lines.append(f"{FAMILY_TITLES[family]}: {known.state} for {age(known.since, now)}{message}")
        if known.held_for:
            lines += _rows([("hold-down", known.reason)])
        lines += _rows(_family(known))
    return "\n".join(lines)


def _rows(rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> list[str]:
    return [f"  {label:<12}{what}" for label, what in rows]


def _summary(uplink: UplinkStatus, policies: Sequence[PolicyStatus]) -> Iterator[tuple[str, str]]:
    for policy in policies:
        if shares := _shares(policy, uplink.name):
            yield "new conns", f"{shares} of {policy.title}"
    if uplink.standby:
        yield "new conns", "none: stands by until no better uplink is up"
    if blocked(uplink):
        yield "new conns", "none: blocked for its quota, even while no other uplink is up"
    if uplink.slow_start is not None:
        yield "slow start", f"{100 * uplink.slow_start:.0f} % of its weight by now"
    yield "open conns", str(uplink.connections)
    if uplink.counted:
        yield "now", f"{rate(uplink.rx_bps)} down, {rate(uplink.tx_bps)} up"
        yield "total", f"{size(uplink.rx_bytes)} down, {size(uplink.tx_bytes)} up, since the link was created"
    else:
        yield "now", f"not known: other uplinks have {uplink.interface}, too"
    if uplink.quota is not None:
        yield "quota", uplink.quota.text
    for line in volume(uplink):
        yield "probes", line.split(": ", 2)[2]
    for queue in uplink.shaping:
        yield "shaping", _queue(queue)
    yield from _outages(uplink)
    yield "in kernel", f"mark {uplink.mark:#x}, table {uplink.table}, weight {uplink.weight}"


def _queue(queue: ShapingStatus) -> str:
    """Return what is known of the queue of one direction."""
    if not queue.active:
        return f"{queue.direction}: off: {queue.reason}"
    counted_bytes = f"{size(queue.sent_bytes)} sent, {size(queue.backlog_bytes)} waiting"
    return (
        f"{queue.direction}: {queue.algorithm} at {rate(queue.rate_bps)}, {counted_bytes}, "
        f"{counted(queue.dropped, 'packet')} dropped"
    )


def _shares(policy: PolicyStatus, name: str) -> str:
    """Return the uplink's share of a policy: once where the families agree."""
    found = {
        FAMILY_TITLES[family]: next((m.share for m in choice.members if m.uplink == name), 0.0)
        for family, choice in policy.families.items()
    }
    if not any(found.values()):
        return ""
    shown = {family: f"{100 * share:.4g} %" for family, share in found.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{percent} ({family})" for family, percent in shown.items())


def _outages(uplink: UplinkStatus) -> Iterator[tuple[str, str]]:
    yield "outages", f"{uplink.outages_today} today"
    for outage in uplink.outages:
        took = "not over yet" if outage.seconds is None else lasted(outage.seconds)
        yield "", f"{_moment(outage.since)}, {took}: {outage.reason}"


def _family(known: FamilyStatus) -> Iterator[tuple[str, str]]:
    if known.address:
        yield "address", known.address
    if known.gateway:
        asked = _found(known.layers.get("gateway")).replace(f": {known.gateway} is at", ": is at")
        yield "gateway", f"{known.gateway}{asked}"
    for number, target in enumerate(known.targets):
        yield "" if number else "targets", f"{target.target}: {_target(target)}"
    for layer, found in known.layers.items():
        if layer != "gateway":
            yield layer, _found(found).removeprefix(", ")


def _found(layer: LayerStatus | None) -> str:
    if layer is None:
        return ""
    return f", {layer.state}" + (f": {layer.detail}" if layer.detail else "")


def _target(target: TargetStatus) -> str:
    if target.missed is None:
        return "not known yet"
    measured = [milliseconds(target.rtt_ms)] if target.rtt_ms is not None else []
    measured += [f"loss {100 * target.loss:.0f} %"] if target.loss is not None else []
    silent = f"no answer to the last {counted(target.missed, 'probe')}" if target.missed else "answers"
    return ", ".join([silent, *measured])


def _moment(iso: str) -> str:
    """Return a moment in local time."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")
