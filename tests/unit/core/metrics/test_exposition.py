"""The text of metrics: both formats, names by the conventions of Prometheus, and what a reader may ask for."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from polywan.api.status import ConfigStatus, DrainStatus, LayerStatus, ShapingStatus, Status
from polywan.api.views.quota import QuotaStatus
from polywan.api.views.totals import ProbeTotals, Totals, UplinkTotals
from polywan.core.metrics.exposition import METRICS, Format, content_type, negotiated, text
from polywan.core.metrics.metric import Kind
from polywan.core.metrics.uplinks import STATES
from polywan.core.policy.uplink_state import UplinkState
from support.any_document import HOSTILE
from support.documents import ago, policy, status, uplink

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="tool missing: promtool (package prometheus of Debian)"
)


def queue(direction: str) -> ShapingStatus:
    return ShapingStatus(
        direction=direction,
        algorithm="cake",
        device="wan1",
        rate_bps=8000,
        active=True,
        reason="",
        sent_bytes=77,
        dropped=3,
        backlog_bytes=1514,
    )


QUOTA = QuotaStatus(
    kind="monthly",
    state="soft",
    action="standby",
    used_bytes=900,
    soft_bytes=800,
    hard_bytes=1000,
    since=ago(86400),
    resets=ago(-86400),
    forecast_bytes=1800,
    runs_out=ago(-3600),
    reading_bytes=850,
    reading_at=ago(60),
    text="",
)


def full(name: str = "fibre") -> Status:
    """A status in which every metric has a value."""
    probes = ProbeTotals(sent=10, lost=1, late=1, rtt_sum_ms=62.5, rtt_buckets=(1, 2, 3, 3))
    return status(
        uplink(
            name,
            since="2026-11-30T08:00:00.000+00:00",
            slow_start=0.5,
            late=0.25,
            queue_ms=3.0,
            unanswered=0.1,
            held_for=9.5,
            last_outage_s=12.0,
            drain=DrainStatus(since=ago(1), deadline=ago(-60), by_operator=True),
            layers={"gateway": LayerStatus(state="ok", detail="", since=None)},
            shaping=(queue("down"), queue("up")),
            quota=QUOTA,
        ),
        policies=(policy("default", {"ipv4": {name: 1.0}}),),
        config=ConfigStatus(since=ago(3), refused=False, refused_ops=0),
        totals=Totals(
            rtt_bounds_ms=(1.0, 10.0, 100.0),
            uplinks={name: UplinkTotals(outages=2, probes={"ipv4": probes})},
            failovers={"default": {"ipv4": 4}},
            repairs=3,
        ),
    )


def lines(form: Format, found: Status | None = None) -> dict[str, str]:
    written = text(found or full(), form).splitlines()
    return dict(line.rsplit(" ", 1) for line in written if not line.startswith("#"))


PROMETHEUS_ASKS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

LABELS = 'uplink="fibre",interface="wan1"'


def test_a_value_has_the_labels_and_the_base_unit_that_its_name_says() -> None:
    found = lines(Format.OPENMETRICS)
    assert found[f"polywan_uplink_rtt_seconds{{{LABELS}}}"] == "0.01234"
    assert found[f"polywan_uplink_receive_bytes_total{{{LABELS}}}"] == "10000"
    assert found[f'polywan_shaping_rate_bytes_per_second{{{LABELS},direction="up"}}'] == "1000.0"
    assert found[f'polywan_uplink_share_ratio{{{LABELS},family="ipv4"}}'] == "0.0"
    assert found[f"polywan_uplink_state_changed_timestamp_seconds{{{LABELS}}}"] == "1796025600.0"


def test_the_state_of_an_uplink_is_one_for_the_state_that_it_has_and_zero_for_the_others() -> None:
    found = lines(Format.OPENMETRICS)
    states = {name: value for name, value in found.items() if name.startswith("polywan_uplink_state{")}
    assert len(states) == len(STATES)
    assert [name for name, value in states.items() if value == "1"] == [
        f'polywan_uplink_state{{{LABELS},polywan_uplink_state="up"}}'
    ]


def test_every_state_that_an_uplink_may_have_is_listed() -> None:
    assert set(STATES) == set(map(str, UplinkState))


def test_a_state_that_is_not_known_yet_is_added() -> None:
    found = lines(Format.PROMETHEUS, status(uplink("fibre", "asleep")))
    assert found[f'polywan_uplink_state{{{LABELS},polywan_uplink_state="asleep"}}'] == "1"
    assert found[f'polywan_uplink_state{{{LABELS},polywan_uplink_state="up"}}'] == "0"


def test_round_trips_are_a_histogram_whose_buckets_add_up() -> None:
    found = lines(Format.OPENMETRICS)
    labels = f'{LABELS},family="ipv4"'
    name = "polywan_probe_rtt_seconds"
    assert [found[f'{name}_bucket{{{labels},le="{bound}"}}'] for bound in ("0.001", "0.01", "0.1", "+Inf")] == [
        "1",
        "3",
        "6",
        "9",
    ]
    assert found[f"{name}_count{{{labels}}}"] == "9"
    assert found[f"{name}_sum{{{labels}}}"] == "0.0625"


def test_the_quota_is_that_of_the_status() -> None:
    found = lines(Format.OPENMETRICS)
    assert found[f"polywan_quota_used_bytes{{{LABELS}}}"] == "900"
    assert found[f'polywan_quota_state{{{LABELS},polywan_quota_state="soft"}}'] == "1"
    assert found[f'polywan_quota_action{{{LABELS},polywan_quota_action="standby"}}'] == "1"
    assert not [name for name in lines(Format.OPENMETRICS, status(uplink("dsl"))) if "quota" in name]


def test_bytes_of_a_device_that_uplinks_share_are_left_out() -> None:
    found = lines(Format.OPENMETRICS, status(uplink("fibre", counted=False)))
    assert not [name for name in found if re.match("polywan_uplink_(receive|transmit)_bytes", name)]
    assert f"polywan_uplink_connections{{{LABELS}}}" in found


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    found = lines(Format.OPENMETRICS, status(uplink("fibre", rtt_ms=None, loss=None), config=None, totals=None))
    assert f"polywan_uplink_rtt_seconds{{{LABELS}}}" not in found
    assert f"polywan_uplink_loss_ratio{{{LABELS}}}" not in found
    assert "polywan_drift_repairs_total" not in found
    assert "polywan_refused_operations" not in found


def test_without_a_daemon_there_is_one_metric_that_says_so() -> None:
    assert text(None) == (
        "# TYPE polywan_up gauge\n# HELP polywan_up 1 if the daemon answers, else 0.\npolywan_up 0\n# EOF\n"
    )
    assert text(None, Format.PROMETHEUS).splitlines()[-1] == "polywan_up 0"


def test_only_openmetrics_has_units_an_end_and_types_of_its_own() -> None:
    new, old = text(full(), Format.OPENMETRICS), text(full(), Format.PROMETHEUS)
    assert "# TYPE polywan_uplink_state stateset\n" in new
    assert "# TYPE polywan_uplink_state gauge\n" in old
    assert "# TYPE polywan_probes_sent counter\n" in new
    assert "# TYPE polywan_probes_sent_total counter\n" in old
    assert "# UNIT polywan_uplink_rtt_seconds seconds\n" in new
    assert "# UNIT" not in old
    assert new.endswith("\n# EOF\n")
    assert "# EOF" not in old


def test_names_are_distinct_and_in_base_units() -> None:
    samples = [metric.sample for metric in METRICS]
    assert len(samples) == len(set(samples))
    for metric in METRICS:
        assert re.fullmatch(r"polywan(_[a-z0-9]+)*", metric.name)
        assert not re.search(r"_(ms|bps|kb|mb|bits|percent|total|info|count|sum|bucket|created)$", metric.name)
        assert metric.help.endswith(".")
        assert '"' not in metric.help


def test_every_metric_has_a_value_in_a_status_that_has_everything() -> None:
    found = lines(Format.OPENMETRICS)
    names = {re.split("[{]", name)[0] for name in found}
    for metric in METRICS:
        endings = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        assert {f"{metric.sample}{ending}" for ending in endings} <= names


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Format.PROMETHEUS),
        ("*/*", Format.PROMETHEUS),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.PROMETHEUS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format.OPENMETRICS),
        (PROMETHEUS_ASKS, Format.OPENMETRICS),
        ("text/plain;version=0.0.4, application/openmetrics-text;q=0.5", Format.PROMETHEUS),
        ("application/openmetrics-text;q=0", Format.PROMETHEUS),
        ("application/openmetrics-text;q=high, ;;,=", Format.PROMETHEUS),
    ],
)
def test_a_reader_gets_the_format_that_it_prefers(accept: str | None, form: Format) -> None:
    assert negotiated(accept) is form


def test_each_format_has_its_media_type() -> None:
    assert content_type().startswith("application/openmetrics-text; version=1.0.0")
    assert content_type(Format.PROMETHEUS).startswith("text/plain; version=0.0.4")


@promtool
@pytest.mark.parametrize("name", HOSTILE)
def test_promtool_has_nothing_to_complain_of(name: str) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text(full(name), Format.PROMETHEUS).encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
