"""Write metrics as text: OpenMetrics 1.0, or the text format of Prometheus (0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise
from math import inf, isfinite, isnan
from typing import Final

from polywan.api.status import Status
from polywan.core.metrics.daemon import DAEMON, UP
from polywan.core.metrics.metric import Kind, Metric, Point
from polywan.core.metrics.policies import POLICIES
from polywan.core.metrics.probes import PROBES
from polywan.core.metrics.uplinks import UPLINKS
from polywan.core.metrics.volumes import QUOTA_METRICS, SHAPING

METRICS: Final[tuple[Metric, ...]] = (*DAEMON, *UPLINKS, *PROBES, *SHAPING, *QUOTA_METRICS, *POLICIES)
"""All of them, in the order in which they are written."""


class Format(StrEnum):
    """How metrics are written: OpenMetrics is what Prometheus asks for, the other what node_exporter reads in files."""

    OPENMETRICS = "openmetrics"
    PROMETHEUS = "prometheus"


_CONTENT_TYPES: Final = {
    Format.OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
    Format.PROMETHEUS: "text/plain; version=0.0.4; charset=utf-8",
}

_IN_PROMETHEUS: Final = {Kind.INFO: Kind.GAUGE, Kind.STATESET: Kind.GAUGE}
"""What the older format calls types that it does not have."""


def content_type(form: Format = Format.OPENMETRICS) -> str:
    """Return the media type of a format, for a Content-Type header."""
    return _CONTENT_TYPES[form]


def negotiated(accept: str | None) -> Format:
    """Return the format that an Accept header prefers (RFC 9110, 12.5.1): OpenMetrics only for those who name it."""
    wanted, plain = 0.0, 0.0
    for part in (accept or "").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weight = next((_weight(p.removeprefix("q=")) for p in parameters if p.startswith("q=")), 1.0)
        if kind == "application/openmetrics-text":
            wanted = max(wanted, weight)
        elif kind == "text/plain":
            plain = max(plain, weight)
    return Format.OPENMETRICS if wanted > 0 and wanted >= plain else Format.PROMETHEUS


def _weight(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if 0 <= found <= 1 else 0.0


def text(status: Status | None, form: Format = Format.OPENMETRICS) -> str:
    """Return the metrics of a status document; None for a daemon that does not answer.

    There are no timestamps: a value is of the moment at which it is read.
    """
    lines: list[str] = []
    if status is None:
        lines += _family(UP, (Point((), 0),), form)
    else:
        for metric in METRICS:
            lines += _family(metric, tuple(metric.read(status)), form)
    end = ["# EOF"] if form is Format.OPENMETRICS else []
    return "".join(f"{line}\n" for line in (*lines, *end))


def _family(metric: Metric, points: tuple[Point, ...], form: Format) -> list[str]:
    """Return the lines of a metric; none where it has no values."""
    samples: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    for point in points:
        labels = tuple(map(_clean, point.labels))
        # Of two uplinks with one name, which no file can have, the first counts: a series must not come twice.
        if labels in seen or not _sound(metric, point):
            continue
        seen.add(labels)
        samples |= _samples(metric, point, list(zip(metric.labels, labels, strict=True)))
    if not samples:
        return []
    return [*_heading(metric, form), *(f"{name} {value}" for name, value in samples.items())]


def _heading(metric: Metric, form: Format) -> Iterator[str]:
    if form is Format.OPENMETRICS:
        yield f"# TYPE {metric.name} {metric.kind}"
        if metric.unit:
            yield f"# UNIT {metric.name} {metric.unit}"
        yield f"# HELP {metric.name} {_escaped(metric.help)}"
    else:
        # HELP of this format escapes no quotes, and none of ours has any.
        yield f"# HELP {metric.sample} {_escaped(metric.help)}"
        yield f"# TYPE {metric.sample} {_IN_PROMETHEUS.get(metric.kind, metric.kind)}"


def _sound(metric: Metric, point: Point) -> bool:
    """Tell whether a value can be one of its type: both formats refuse a counter that is negative or no number."""
    value = point.value
    if value is None or isinstance(value, str):
        return metric.kind in (Kind.INFO, Kind.STATESET)
    if metric.kind is Kind.GAUGE:
        return True
    return isfinite(value) and value >= 0 and _rising(point.buckets)


def _rising(buckets: tuple[tuple[float, int], ...]) -> bool:
    return all(0 < low < high and 0 <= few <= many for (low, few), (high, many) in pairwise(buckets)) and all(
        number >= 0 for _, number in buckets
    )


def _samples(metric: Metric, point: Point, labels: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield names with their labels, and values."""
    if metric.kind is Kind.STATESET:
        state = _clean(str(point.value))
        for each in dict.fromkeys((*metric.states, state)):
            yield _named(metric.name, [*labels, (metric.name, each)]), _number(each == state)
    elif metric.kind is Kind.HISTOGRAM and not isinstance(point.value, str):
        for bound, number in point.buckets:
            yield _named(f"{metric.name}_bucket", [*labels, ("le", _number(float(bound)))]), _number(number)
        yield _named(f"{metric.name}_sum", labels), _number(float(point.value or 0))
        yield _named(f"{metric.name}_count", labels), _number(point.buckets[-1][1])
    else:
        value = point.value if isinstance(point.value, int | float) else 1
        yield _named(metric.sample, labels), _number(value)


def _named(name: str, labels: list[tuple[str, str]]) -> str:
    inside = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    return f"{name}{{{inside}}}" if inside else name


def _clean(text: str) -> str:
    """Return what UTF-8 can write of a text: JSON may hold halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    if isnan(value):
        return "NaN"
    return repr(value) if isfinite(value) else "+Inf" if value == inf else "-Inf"
