"""Whatever a status document holds, its metrics are text that Prometheus reads, and say what the document says."""

from __future__ import annotations

from math import isnan

from hypothesis import given
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from polywan.api.status import Status, UplinkStatus
from polywan.core.metrics.exposition import METRICS, Format, text
from support.any_document import any_document

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(form: Format, status: Status | None) -> list[Metric]:
    written = text(status, form)
    written.encode()
    return list((openmetrics if form is Format.OPENMETRICS else classic)(written))


def series(form: Format, status: Status) -> Series:
    found: Series = {}
    for family in read(form, status):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and isnan(one) and isnan(other))


@given(any_document(Status))
def test_any_status_is_text_that_parsers_of_both_formats_accept(status: Status) -> None:
    names = {metric.name for metric in METRICS}
    assert {family.name for family in read(Format.OPENMETRICS, status)} <= names
    assert len(read(Format.PROMETHEUS, status)) == len(read(Format.OPENMETRICS, status))


@given(any_document(Status))
def test_both_formats_have_the_same_series(status: Status) -> None:
    one, other = series(Format.OPENMETRICS, status), series(Format.PROMETHEUS, status)
    assert one.keys() == other.keys()
    assert all(same(one[key], other[key]) for key in one)


def cleaned(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


@given(any_document(Status))
def test_what_is_read_back_is_what_the_status_says(status: Status) -> None:
    found = series(Format.OPENMETRICS, status)

    def of(uplink: UplinkStatus, name: str, **more: str) -> float | None:
        labels = {"uplink": uplink.name, "interface": uplink.interface, **more}
        return found.get((name, frozenset((key, cleaned(value)) for key, value in labels.items())))

    ids = [(cleaned(uplink.name), cleaned(uplink.interface)) for uplink in status.uplinks]
    for place, uplink in enumerate(status.uplinks):
        if ids.index(ids[place]) != place:
            continue
        assert of(uplink, "polywan_uplink_connections") == uplink.connections
        assert of(uplink, "polywan_uplink_weight") == uplink.weight
        assert same(of(uplink, "polywan_uplink_loss_ratio"), uplink.loss)
        assert of(uplink, "polywan_uplink_state", polywan_uplink_state=uplink.state) == 1
        received = uplink.rx_bytes if uplink.counted and uplink.rx_bytes >= 0 else None
        assert of(uplink, "polywan_uplink_receive_bytes_total") == received
        if uplink.rtt_ms is not None:
            assert same(of(uplink, "polywan_uplink_rtt_seconds"), uplink.rtt_ms / 1000)
    assert found["polywan_ready", frozenset()] == status.ready
    assert found["polywan_warnings", frozenset()] == len(status.warnings)


@given(any_document(Status))
def test_one_state_of_every_set_holds(status: Status) -> None:
    for family in read(Format.OPENMETRICS, status):
        if family.type == "stateset":
            groups: dict[frozenset[tuple[str, str]], float] = {}
            for sample in family.samples:
                key = frozenset((k, v) for k, v in sample.labels.items() if k != family.name)
                groups[key] = groups.get(key, 0) + sample.value
            assert set(groups.values()) == {1}
