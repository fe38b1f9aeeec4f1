"""What has changed between two status documents, and the later one from the earlier and what has changed.

The law: whoever has a snapshot, and every change and sample since, has what the status says now. Numbers that no
sample carries may be older, and no older than the last change of their uplink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from polywan.api.codec import Doc
from polywan.api.document import Document, DocumentType
from polywan.api.status import FamilyStatus, LayerStatus, ShapingStatus, Status, UplinkStatus
from polywan.api.views.quota import QuotaStatus
from polywan.api.views.stream import Change, StreamSample, UplinkSample

SAMPLED: Final = ("rx_bps", "tx_bps", "rx_bytes", "tx_bytes", "connections", "rtt_ms", "jitter_ms", "loss")
"""What a sample says of an uplink, as its status has it."""

VOLATILE: Final[Mapping[DocumentType, frozenset[str]]] = {
    Status: frozenset({"totals"}),
    UplinkStatus: frozenset({*SAMPLED, "late", "queue_ms", "probe_bytes", "probe_bytes_month", "unanswered"}),
    FamilyStatus: frozenset({"rtt_ms", "loss", "targets"}),
    LayerStatus: frozenset({"detail"}),
    ShapingStatus: frozenset({"sent_bytes", "dropped", "backlog_bytes"}),
    QuotaStatus: frozenset({"used_bytes", "forecast_bytes", "runs_out", "text"}),
}
"""Keys that change with every look; alone they are no change."""

_COUNTED_DOWN: Final = "held_for"
"""That it is there is a change; that it is less every second is none."""

_HEAD: Final = ("schema", "version", "since")
_BESIDE: Final = ("generation", "ready", "drift", "warnings", "notes", "apply_ms", "apply_ops", "config")


@lru_cache(maxsize=64)
def _kept(kind: DocumentType) -> tuple[str, ...]:
    return tuple(name for name in kind.__fields__ if name not in VOLATILE.get(kind, ()))


def lasting(value: Any) -> Any:
    """Return what a document says apart from what is measured, as something to compare."""
    if isinstance(value, Document):
        return tuple(
            getattr(value, name) is None if name == _COUNTED_DOWN else lasting(getattr(value, name))
            for name in _kept(type(value))
        )
    if isinstance(value, Mapping):
        return {key: lasting(held) for key, held in value.items()}
    return tuple(map(lasting, value)) if isinstance(value, tuple) else value


def differs(before: UplinkStatus | None, after: UplinkStatus, *, whole: bool = False) -> bool:
    """True when an uplink has changed apart from what is measured, or with `whole` in anything."""
    return before is None or (before != after if whole else lasting(before) != lasting(after))


def change(
    before: Status,
    after: Status,
    time: str,
    uplinks: Sequence[UplinkStatus] | None = None,
    *,
    whole: bool = False,
) -> Change | Status | None:
    """Return what has to be said to whoever has the earlier document, so that he has the later one.

    Args:
        before: the earlier document.
        after: the later one.
        time: now, ISO 8601.
        uplinks: those of the later document that differ, where somebody has found out already (`differs`).
        whole: what is measured is a change, too.

    Returns:
        None for nothing; the later document itself where a change cannot say it: uplinks in another order, or the
        moment at which the daemon started by a clock that was set.
    """
    seen = {uplink.name: uplink for uplink in before.uplinks}
    new = [u for u in after.uplinks if differs(seen.get(u.name), u, whole=whole)] if uplinks is None else uplinks
    there = {uplink.name for uplink in after.uplinks}
    other = before.policies != after.policies
    found = Change(
        time=time,
        uplinks=tuple(new),
        removed=tuple(name for name in seen if name not in there),
        policies=after.policies if other else None,
        **{name: getattr(after, name) for name in _BESIDE},
    )
    if not (found.uplinks or found.removed or other or _differ(before, after, (*_HEAD, *_BESIDE))):
        return _ordered(before, after)
    if _differ(before, after, _HEAD) or _names(changed(before, found)) != _names(after):
        return after
    return found


def _ordered(before: Status, after: Status) -> Status | None:
    return None if _names(before) == _names(after) else after


def _names(status: Status) -> list[str]:
    return [uplink.name for uplink in status.uplinks]


def _differ(one: Status, other: Status, names: Sequence[str]) -> bool:
    return any(getattr(one, name) != getattr(other, name) for name in names)


def changed(status: Status, change: Change) -> Status:
    """Return a status document after a change: uplinks that are new come behind the others."""
    new = {uplink.name: uplink for uplink in change.uplinks}
    uplinks = [new.pop(u.name, u) for u in status.uplinks if u.name not in change.removed]
    return _with(
        status,
        uplinks=(*uplinks, *new.values()),
        policies=status.policies if change.policies is None else change.policies,
        **{name: getattr(change, name) for name in _BESIDE},
    )


def sampled(status: Status, sample: StreamSample) -> Status:
    """Return a status document with what was measured since; what is not known stays as it was."""
    return _with(status, uplinks=tuple(_measured(u, sample.uplinks.get(u.name)) for u in status.uplinks))


def _measured(uplink: UplinkStatus, sample: UplinkSample | None) -> UplinkStatus:
    if sample is None:
        return uplink
    # Of what a line does now None is an answer; a counter that nobody has read is as it was.
    found = {name: getattr(sample, name) for name in SAMPLED}
    known = {k: v for k, v in found.items() if v is not None or k in ("rtt_ms", "jitter_ms", "loss")}
    return _with(uplink, **known)


def emptied(document: Doc) -> Doc:
    """Return a document of uplinks without them."""
    return _with(document, uplinks=())


def _with(document: Doc, **values: Any) -> Doc:
    there = {name: getattr(document, name) for name in type(document).__fields__}
    return type(document)(**{**there, **values})
