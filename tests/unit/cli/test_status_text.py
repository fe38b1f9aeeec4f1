"""What `polywan status` prints, from status documents."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from polywan.api.status import DrainStatus, ShapingStatus, Status, UplinkStatus
from polywan.api.views.quota import QuotaStatus
from polywan.cli import status as verb
from polywan.cli.fitting import shortened, terminal_width
from polywan.cli.oneuplink import text as in_full
from polywan.cli.overview import text
from polywan.client import Client
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.status.uplink_detail import stands_by
from support.documents import ago, family, outage, policy, status, uplink


def lines(document: Status, width: int | None = None) -> list[str]:
    return click.unstyle(text(document, width)).splitlines()


LONG = (
    "network answers, DNS does not (1.1.1.1: no answer; 8.8.8.8: no answer; 9.9.9.9: no answer) and so on and so forth"
)
DOWN = {"ipv4": family("down", LONG), "ipv6": family("down", LONG + ", IPv6 too")}


def test_when_all_is_well_there_is_a_line_for_each_uplink_and_nothing_else() -> None:
    shown = lines(status(uplink("fibre", share=0.75), uplink("dsl", share=0.25)), 80)
    assert [line.split()[0] for line in shown] == ["UPLINK", "fibre", "dsl"]
    for word in ("up", "3 min", "75 %", "12.3 ms", "0 %", "42", "12.3 Mb/s", "298 kb/s"):
        assert word in shown[1]


def test_a_warning_leads_to_the_doctor_and_no_warning_does_not() -> None:
    assert "polywan doctor" in lines(status(uplink("fibre"), warnings=("look here",)), 80)[-1]
    assert "doctor" not in "".join(lines(status(uplink("fibre", "down")), 80))


def test_what_is_wrong_comes_first_with_one_line_each_the_worst_before_the_others() -> None:
    degraded = uplink("lte", "degraded", families={"ipv4": family("degraded", "loss 50 %")})
    down = uplink("dsl", "down", families={"ipv4": family("down", "no carrier"), "ipv6": family("down", "no carrier")})
    shown = lines(status(uplink("fibre", share=1.0), degraded, down, warnings=("look here",)), 80)
    assert shown[:4] == [
        "dsl: down for 3 min: no carrier",
        "lte: degraded for 3 min: loss 50 %",
        "warning: look here",
        "",
    ]


WORST = status(
    uplink("fibre", share=0.5, shares={"ipv4": 0.5, "ipv6": 1.0}),
    uplink("a-very-long-name-for-an-uplink", "down", reason=LONG, families=DOWN, rtt_ms=None, loss=None),
    uplink("lte", standby=True, metered=True, probe_bytes=123_456_789, probe_bytes_month=163_000_000),
    uplink("dsl", "degraded", 0.5, shares={"ipv4": 0.5, "ipv6": 0.0}, loss=1.0, rx_bps=999_949_000_000),
    policies=(
        policy("default", {"ipv4": {"fibre": 0.5, "dsl": 0.5}, "ipv6": {"fibre": 1.0}}),
        policy("voip", {"ipv4": {"fibre": 0.123456, "dsl": 0.876544}, "ipv6": {}}, reason=LONG),
    ),
    warnings=(LONG * 3,),
    drift=("+ rule " + "x" * 100,) * 9,
)


@pytest.mark.parametrize("width", [44, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, lines(WORST, width))) <= width


def test_a_narrow_table_keeps_name_state_and_share() -> None:
    for width in (44, 60, 80):
        heading = next(line for line in lines(WORST, width) if line.startswith("UPLINK"))
        assert {"UPLINK", "STATE", "DEFAULT"} <= set(heading.split())


def test_everything_is_there_where_no_width_is_known() -> None:
    assert LONG in "\n".join(lines(WORST))
    assert not [line for line in lines(WORST) if "…" in line]


def test_what_was_cut_says_where_it_is_told_in_full() -> None:
    assert lines(WORST, 80)[-1] == "…: cut; the full text: polywan status NAME, or polywan status | cat"


def test_a_sentence_loses_its_asides_before_its_end() -> None:
    assert shortened(LONG, 60) == "network answers, DNS does not and so on and so forth"
    assert shortened(LONG, 30) == "network answers, DNS does not…"
    assert (
        shortened("gateway answers, nothing beyond it: 6 rounds in a row", 50) == "gateway answers, nothing beyond it…"
    )


def test_a_refused_transaction_is_one_line() -> None:
    shown = shortened("the kernel refused: nft\n    flush chain x\n    delete chain y: no such file", None)
    assert shown == "the kernel refused: nft … delete chain y: no such file"


BUSY = family("degraded", "busy: x")
BLOCKED = QuotaStatus(
    kind="prepaid",
    state="hard",
    action="block",
    used_bytes=10,
    soft_bytes=9,
    hard_bytes=10,
    since="2026-11-30T08:00:00.000+00:00",
    resets=None,
    forecast_bytes=None,
    runs_out=None,
    reading_bytes=None,
    reading_at=None,
    text="10 B of 10 B used (100 %)",
)


@pytest.mark.parametrize(
    ("uplink_document", "word"),
    [
        (uplink("a"), "up"),
        (uplink("a", standby=True), "standing by"),
        (uplink("a", quota=BLOCKED), "blocked"),
        (uplink("a", "degraded", families={"ipv4": family("degraded", "busy: answers come 1.2 s late")}), "busy"),
        (uplink("a", "degraded", families={"ipv4": family("degraded", "loss 50 %")}), "degraded"),
        (uplink("a", "degraded", families={"ipv4": BUSY, "ipv6": family("degraded", "busy: y")}), "busy"),
        (uplink("a", "degraded", families={"ipv4": BUSY, "ipv6": family("down", "y")}), "degraded"),
        (uplink("a", "drained", reason="drained by operator"), "drained"),
    ],
)  # fmt: skip
def test_the_state_is_told_in_a_word(uplink_document: UplinkStatus, word: str) -> None:
    row = next(line for line in lines(status(uplink_document)) if line.startswith("a  "))
    assert row[8:].startswith(f"{word}  ")


def test_what_a_queue_does_to_both_families_is_said_once() -> None:
    families = {"ipv4": family("degraded", "busy: 1.2 s late"), "ipv6": family("degraded", "busy: 1.3 s late")}
    assert lines(status(uplink("a", "degraded", families=families)))[0] == "a: busy for 3 min: 1.2 s late"


def test_an_uplink_that_its_quota_blocks_is_never_said_to_stand_by() -> None:
    state = SimpleNamespace(
        known=SimpleNamespace(quotas=SimpleNamespace(restrictions={"a": "block"})),
        decision=SimpleNamespace(
            views={name: SimpleNamespace(state=UplinkState.UP) for name in "ab"}, selection=SimpleNamespace(choices={})
        ),
    )
    found = [stands_by(state, name) for name in "ab"]  # type: ignore[arg-type]  # as much of one as is needed
    assert found == [False, True]
    poor = uplink("lte", "degraded", quota=BLOCKED, families={"ipv4": family("degraded", "loss 50 %")})
    assert lines(status(poor))[0] == "lte: degraded for 3 min, blocked: loss 50 %"
    assert "none: blocked for its quota, even while no other uplink is up" in in_full(poor, [])


def test_a_degraded_uplink_that_is_given_nothing_stands_by() -> None:
    poor = uplink("lte", "degraded", standby=True, families={"ipv4": family("degraded", "loss 50 %")})
    assert lines(status(poor))[0] == "lte: degraded for 3 min, standing by: loss 50 %"


def test_a_held_uplink_says_for_how_much_longer() -> None:
    reason = "coming back: hold-down of 40 s after its first answer (lost 3 times in 5 min)"
    held = uplink("dsl", "down", reason=reason, held_for=23.2, families={"ipv4": family("down", reason, held_for=23.2)})
    assert lines(status(held))[0] == "dsl: down for 3 min: answers again, hold-down for another 23 s"
    assert reason in in_full(held, [])


def test_families_are_told_apart_only_where_they_differ() -> None:
    both = {"ipv4": family("down", "no carrier"), "ipv6": family("down", "no carrier")}
    assert lines(status(uplink("a", "down", families=both)))[0] == "a: down for 3 min: no carrier"
    differ = {"ipv4": family("down", "no IPv4 address yet"), "ipv6": family("down", "no answer")}
    assert lines(status(uplink("a", "down", families=differ)))[0].endswith("no IPv4 address yet; IPv6: no answer")
    one = {"ipv4": family(), "ipv6": family("down", "no answer")}
    assert lines(status(uplink("a", "degraded", families=one)))[0].endswith(": IPv6 down: no answer")
    poor = {"ipv4": family("degraded", "loss 50 %"), "ipv6": family()}
    assert lines(status(uplink("a", "degraded", families=poor)))[0].endswith(": IPv4: loss 50 %")


def test_shares_have_a_column_for_each_family_where_these_differ() -> None:
    differ = status(
        uplink("a", share=1.0, shares={"ipv4": 0.5, "ipv6": 1.0}),
        uplink("b", share=0.5, shares={"ipv4": 0.5, "ipv6": 0.0}),
    )
    heading, first, second = lines(differ)
    assert "SHARE v4  SHARE v6" in heading
    assert [line.split()[4:8:2] for line in (first, second)] == [["50", "100"], ["50", "0"]]


def test_the_share_is_called_that_of_the_default_where_rules_send_elsewhere() -> None:
    more = (policy("default", {"ipv4": {"a": 1.0}}), policy("voip", {"ipv4": {"a": 0.6, "b": 0.4}}))
    shown = lines(status(uplink("a", share=1.0), policies=more))
    assert "OF DEFAULT" in shown[0]
    assert shown[-1] == "policy voip: a 60 %, b 40 %"


def test_a_rule_that_names_an_uplink_is_silent_while_that_uplink_serves_it() -> None:
    title = "a, or policy default without it"
    well = policy("uplink_a", {"ipv4": {"a": 1.0}, "ipv6": {"a": 1.0}}, title)
    assert len(lines(status(uplink("a", share=1.0), policies=(well,)))) == 2
    without = policy("uplink_a", {"ipv4": {"b": 1.0}, "ipv6": {"b": 1.0}}, title)
    assert lines(status(uplink("a", share=1.0), policies=(without,)))[-1] == f"{title}: b 100 %"


def test_a_warning_about_both_families_is_one_line() -> None:
    warnings = tuple(f"policy default (IPv{n}): no healthy uplink" for n in (4, 6))
    assert lines(status(uplink("a"), warnings=warnings))[0] == "warning: policy default: no healthy uplink"
    assert lines(status(uplink("a"), warnings=warnings[:1]))[0] == f"warning: {warnings[0]}"


def test_a_great_many_dead_uplinks_do_not_push_the_table_away() -> None:
    shown = lines(status(*(uplink(f"u{n}", "down", reason="no carrier") for n in range(53))), 80)
    assert [line.split(":")[0] for line in shown[:8]] == [
        *(f"u{n}" for n in range(7)),
        "46 more uplinks are down or missing",
    ]


def test_one_connection_that_is_left_is_no_plural() -> None:
    drain_state = DrainStatus(since=ago(5), deadline=None, by_operator=True)
    drained = uplink("a", "draining", reason="drained by operator", connections=1, drain=drain_state)
    assert lines(status(drained))[-1] == "a: drained by operator; 1 connection remains"


def test_the_outages_of_the_day_are_one_line() -> None:
    shown = lines(status(uplink("a", outages_today=3, last_outage_s=252.0), uplink("b"), uplink("c", outages_today=1)))
    assert shown[-1] == "outages today: a 3 (the last 4 min 12 s), c 1"


def test_what_is_not_known_is_a_dash() -> None:
    assert lines(status(uplink("a", rtt_ms=None, loss=None, since=None)))[1].split()[2:7] == ["-", "0", "%", "-", "-"]


def test_all_about_one_uplink_is_told_by_family_and_target() -> None:
    outages = (outage(100, None, "no carrier"), outage(9000, 252.0, "gateway answers, nothing beyond it"))
    down = family("down", LONG, address=None, gateway=None)
    one = uplink("dsl", "degraded", outages_today=2, outages=outages, families={"ipv4": family(), "ipv6": down})
    shown = in_full(one, [policy("default", {"ipv4": {"dsl": 0.5, "a": 0.5}, "ipv6": {"a": 1.0}})])
    for part in (
        f"dsl (wan1): degraded for 3 min: IPv6 down: {LONG}",
        "50 % (IPv4), 0 % (IPv6) of policy default",
        "outages     2 today",
        "not over yet: no carrier",
        "4 min 12 s: gateway answers, nothing beyond it",
        "address     100.64.1.2",
        "8.8.8.8: no answer to the last 1 probe, loss 100 %",
        "IPv6: down for 3 min",
        "mark 0x100, table 6001",
    ):
        assert part in shown


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    document = status(uplink("fibre", share=1.0), uplink("dsl", "down"))
    monkeypatch.setattr(Client, "ask", lambda *_: document)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["fibre"], 0, "fibre (wan1): up"),
        (["fibre", "--check"], 0, "fibre (wan1): up"),
        (["dsl", "--check"], 7, "dsl (wan1): down"),
        (["fibre", "--json"], 0, '"name": "fibre"'),
        (["fibr"], 2, 'there is no uplink "fibr"; did you mean "fibre"?'),
        (["zzz"], 2, "known here: dsl, fibre"),
    ],
)
@pytest.mark.usefixtures("two")
def test_an_uplink_is_asked_for_by_its_name(arguments: list[str], code: int, said: str) -> None:
    done = CliRunner().invoke(verb.command, arguments)
    assert (done.exit_code, said in done.output) == (code, True)


@pytest.mark.parametrize(("said", "width"), [("60", 60), ("5", 44), ("", None), ("wide", None), ("0", None)])
def test_the_width_is_what_columns_says(monkeypatch: pytest.MonkeyPatch, said: str, width: int | None) -> None:
    monkeypatch.setenv("COLUMNS", said)
    assert terminal_width() == width


@pytest.mark.parametrize(("columns", "name"), list(product([30, 60, 80], ["a", "x" * 40])))
def test_every_width_and_name_makes_a_table_of_whole_lines(columns: int, name: str) -> None:
    shown = lines(status(uplink(name, share=1.0)), columns)
    assert (len(shown), max(map(len, shown)) <= columns) == (2, True)


def test_each_direction_that_is_shaped_has_a_line_with_its_rate_or_why_it_is_off() -> None:
    queue = ShapingStatus(
        direction="down",
        algorithm="cake",
        device="pw-ifb1",
        rate_bps=47_500_000,
        active=True,
        reason="",
        sent_bytes=312_400_000,
        dropped=1,
        backlog_bytes=12_300,
    )
    off = ShapingStatus(
        direction="up",
        algorithm="cake",
        device="ppp0",
        rate_bps=9_500_000,
        active=False,
        reason="another program's fq_codel 77: is there",
        sent_bytes=0,
        dropped=0,
        backlog_bytes=0,
    )
    shown = in_full(uplink("dsl", shaping=(queue, off)), []).splitlines()
    assert "  shaping     down: cake at 47.5 Mb/s, 312.4 MB sent, 12.3 kB waiting, 1 packet dropped" in shown
    assert "  shaping     up: off: another program's fq_codel 77: is there" in shown
    assert "shaping" not in in_full(uplink("dsl"), [])
