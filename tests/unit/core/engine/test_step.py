"""What the engine does on each event; the kernel is perfect here (tests/scenario has the other one)."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from polywan.core.engine import agenda
from polywan.core.engine import step as engine
from polywan.core.net import TABLE_LOCAL, Family, TableId
from polywan.core.plan.plan import (
    ActualState,
    AddRule,
    ApplyReport,
    DelRoute,
    DelRule,
    Failure,
    NftBatch,
    PutRoute,
    SetSysctl,
)
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.routing.routes import first_table
from polywan.core.routing.sysctls import EVENTS, Sysctl
from polywan.core.ruleset.model import replace_text, state_of
from polywan.core.ruleset.policies import slot_map
from polywan.core.state.effects import (
    Apply,
    Effect,
    ForgetUntranslated,
    ForgetWrongSource,
    Level,
    Log,
    Read,
    ReleaseConnections,
    SaveMemory,
    StartProbe,
)
from polywan.core.state.events import (
    Applied,
    ConfigLoaded,
    EventsLost,
    LinkChanged,
    LinkRemoved,
    OwnStateChanged,
    ReadDone,
    Tick,
)
from polywan.core.state.retired_marks import RETIREMENT
from polywan.core.state.state import State
from support.engine_world import Engine, config, link, world


def serving(daemon: Engine, family: Family = Family.V4, policy: str = "default") -> list[str]:
    assert daemon.state.decision.selection is not None
    return [name for name, _ in daemon.state.decision.selection.choices[policy, family].members]


def test_the_first_read_leads_to_one_plan_for_everything() -> None:
    daemon = Engine(config(2), world(2))
    assert len(daemon.plans()) == 1
    assert serving(daemon) == ["u1", "u2"]


def test_what_uplinks_are_numbered_is_on_disk_before_the_plan() -> None:
    effects = Engine(config(2), world(2)).effects
    kinds = [type(e) for e in effects]
    assert kinds.index(SaveMemory) < kinds.index(Apply)


def test_a_kernel_that_holds_everything_already_is_left_alone() -> None:
    first = Engine(config(2), world(2))
    second = Engine(config(2), world(2), first.state.known.actual)
    assert second.plans() == []


def test_carrier_loss_moves_new_connections_in_the_same_step() -> None:
    daemon = Engine(config(3), world(3))
    effects = daemon.carrier(1, carrier=False)
    assert serving(daemon) == ["u2", "u3"]
    assert isinstance(effects[0], Apply)


def test_connections_of_the_dead_uplink_are_cut_after_the_new_path_is_in_force() -> None:
    effects = Engine(config(2), world(2)).carrier(1, carrier=False)
    kinds = [type(e) for e in effects]
    assert kinds.index(Apply) < kinds.index(ReleaseConnections)
    assert {(e.uplink, e.family) for e in effects if isinstance(e, ReleaseConnections)} == {
        ("u1", Family.V4),
        ("u1", Family.V6),
    }


def test_stragglers_are_swept_once_more() -> None:
    daemon = Engine(config(2), world(2))
    daemon.carrier(1, carrier=False)
    daemon.now = 1.0
    assert {e.uplink for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)} == {"u1"}
    daemon.now = 2.0
    assert [e for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)] == []


@pytest.mark.parametrize(
    ("event", "soon"),
    [
        (LinkChanged(link(1, carrier=False)), set()),
        (LinkChanged(replace(link(1, carrier=False), up=False)), {"u1"}),
        (LinkRemoved("wan1"), {"u1"}),
    ],
)
def test_what_the_kernel_forgets_with_a_device_is_looked_for_soon(
    event: LinkChanged | LinkRemoved, soon: set[str]
) -> None:
    daemon = Engine(config(2), world(2))
    daemon.feed(event)
    daemon.now = 0.05
    assert {e.uplink for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)} == soon
    daemon.now = 1.0
    assert {e.uplink for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)} == {"u1"}


def test_what_a_refused_transaction_had_no_dead_marks_for_is_cut_as_soon_as_one_is_taken() -> None:
    daemon = Engine(config(2), world(2))
    (lost,) = daemon.plans(daemon.carrier(1, carrier=False))
    refused = ApplyReport(plan=lost.plan, done=0, failures=(Failure(lost.plan.ops[-1], 2, "no such table"),))
    daemon.feed(Applied(refused))
    taken = daemon.feed(Applied(ApplyReport(plan=lost.plan, done=1)))
    assert {e.uplink for e in taken if isinstance(e, ReleaseConnections)} == {"u1"}
    assert not any(isinstance(e, ReleaseConnections) for e in daemon.feed(Tick()))
    daemon.now = 1.0
    assert {e.uplink for e in daemon.feed(Tick()) if isinstance(e, ReleaseConnections)} == {"u1"}


def test_the_last_link_is_never_cut() -> None:
    daemon = Engine(config(1), world(1))
    effects = daemon.carrier(1, carrier=False)
    assert [e for e in effects if isinstance(e, ReleaseConnections)] == []
    assert daemon.state.decision.selection is not None
    assert daemon.state.decision.selection.dead == frozenset()


def fail_probes(daemon: Engine, name: str, family: Family, seconds: float = 4.0) -> None:
    """Let time pass; the probes of one uplink go unanswered, all others are answered, and both are known at once."""
    daemon.internet.silent = {(name, family)}
    end = daemon.now + seconds
    while daemon.now < end:
        for order in [e.order for e in daemon.feed(Tick()) if isinstance(e, StartProbe)]:
            for _, result in daemon.internet.answers(order, daemon.now):
                daemon.feed(result)
        daemon.now += 0.05


def test_silent_loss_in_one_family_moves_that_family_only() -> None:
    daemon = Engine(config(2), world(2))
    fail_probes(daemon, "u1", Family.V6)
    assert serving(daemon, Family.V4) == ["u1", "u2"]
    assert serving(daemon, Family.V6) == ["u2"]
    assert daemon.state.decision.views["u1"].state is UplinkState.DEGRADED


def test_an_uplink_that_died_of_two_causes_names_the_family_of_each() -> None:
    daemon = Engine(config(2), replace(world(2), addresses=world(2).addresses[:1] + world(2).addresses[2:]))
    fail_probes(daemon, "u1", Family.V4)
    seen = daemon.state.decision.views["u1"]
    assert seen.state is UplinkState.DOWN
    first, second = seen.reason.split("; ")
    assert first.startswith("IPv4: 3 probe rounds in a row failed")
    assert second == "no IPv6 address yet"


def test_when_the_only_uplink_stops_answering_the_last_good_choice_stays() -> None:
    daemon = Engine(config(1), world(1))
    fail_probes(daemon, "u1", Family.V4)
    assert serving(daemon) == ["u1"]
    assert daemon.state.decision.selection is not None
    assert daemon.state.decision.selection.choices["default", Family.V4].forced


def test_metered_uplinks_stand_by() -> None:
    configuration = config(1).model_copy()
    mixed = type(configuration).model_validate(
        {"uplinks": {"u1": {"interface": "wan1"}, "u2": {"interface": "wan2", "metered": True}}}
    )
    daemon = Engine(mixed, world(2))
    assert serving(daemon) == ["u1"]
    daemon.carrier(1, carrier=False)
    assert serving(daemon) == ["u2"]


def test_an_uplink_without_interface_is_missing_and_picked_up_when_it_appears() -> None:
    daemon = Engine(config(2), world(1))
    assert daemon.state.decision.views["u2"].state is UplinkState.MISSING
    daemon.feed(ReadDone(world(2), daemon.state.known.actual or ActualState()))
    fail_probes(daemon, "nobody", Family.V4, seconds=12)
    assert serving(daemon) == ["u1", "u2"]


def test_a_link_that_is_removed_is_missing_at_once() -> None:
    daemon = Engine(config(2), world(2))
    daemon.feed(LinkRemoved("wan2"))
    assert daemon.state.decision.views["u2"].state is UplinkState.MISSING
    assert serving(daemon) == ["u1"]


def test_a_gateway_that_main_forgot_is_remembered() -> None:
    daemon = Engine(config(2), world(2))
    bare = replace(world(2), defaults=())
    daemon.feed(ReadDone(bare, daemon.state.known.actual or ActualState()))
    assert serving(daemon) == ["u1", "u2"]
    assert daemon.state.known.memory.gateways["u1", Family.V4] == ip_address("100.64.1.1")


def test_whoever_was_given_another_links_address_while_addresses_were_exchanged_is_let_go() -> None:
    def addressed(ip: str) -> list[ForgetWrongSource]:
        observed = world(2)
        moved = tuple(
            replace(a, ip=ip_interface(ip)) if a.link == "wan1" and a.ip.version == 4 else a for a in observed.addresses
        )
        assert daemon.state.known.actual is not None
        effects = daemon.feed(ReadDone(replace(observed, addresses=moved), daemon.state.known.actual))
        return [e for e in effects if isinstance(e, ForgetWrongSource)]

    daemon = Engine(config(2), world(2))
    assert not [e for e in daemon.effects if isinstance(e, ForgetWrongSource)]
    (wrong,) = addressed("100.64.1.77/24")
    assert (wrong.uplink, wrong.mark, wrong.family) == ("u1", 0x100, Family.V4)
    assert "100.64.2.2" in wrong.others
    assert "100.64.1.77" not in wrong.others
    assert addressed("100.64.1.77/24") == []


def test_a_changed_gateway_is_followed() -> None:
    daemon = Engine(config(1), world(1, [Family.V4]))
    moved = replace(world(1, [Family.V4]), defaults=(replace(world(1).defaults[0], via=ip_address("100.64.1.254")),))
    (plan,) = daemon.plans(daemon.feed(ReadDone(moved, daemon.state.known.actual or ActualState())))
    assert any("via 100.64.1.254" in str(op) or "100.64.1.254" in repr(op) for op in plan.plan.ops)


def test_a_deleted_rule_is_put_back_and_the_log_says_who_did_it() -> None:
    daemon = Engine(config(2), world(2))
    assert daemon.state.known.actual is not None
    tampered = replace(daemon.state.known.actual, rules=frozenset(list(daemon.state.known.actual.rules)[1:]))
    daemon.feed(OwnStateChanged("rule", "ip (pid 7)"))
    effects = daemon.feed(ReadDone(world(2), tampered))
    assert len(daemon.plans(effects)) == 1
    assert any(isinstance(e, Log) and e.event == "drift.repaired" and "ip (pid 7)" in e.text for e in effects)


def test_a_deleted_table_is_put_back_whole() -> None:
    daemon = Engine(config(2), world(2))
    assert daemon.state.known.actual is not None
    (plan,) = daemon.plans(daemon.feed(ReadDone(world(2), replace(daemon.state.known.actual, nft=None))))
    (batch,) = [op for op in plan.plan.ops if isinstance(op, NftBatch)]
    assert batch.text.startswith("add table inet polywan\ndelete table inet polywan\n")


def test_whoever_began_while_the_table_was_gone_chooses_anew_once_it_is_back() -> None:
    engine = Engine(config(2), world(2))
    assert [type(e) for e in engine.effects if isinstance(e, Apply | ForgetUntranslated)] == [Apply, ForgetUntranslated]
    assert engine.state.known.observed is not None
    assert engine.state.known.actual is not None
    again = engine.feed(ReadDone(engine.state.known.observed, replace(engine.state.known.actual, nft=None)))
    assert [type(e) for e in again if isinstance(e, Apply | ForgetUntranslated)] == [Apply, ForgetUntranslated]
    assert not any(isinstance(e, ForgetUntranslated) for e in engine.carrier(1, carrier=False))


def test_a_fight_with_another_program_is_slowed_down() -> None:
    daemon = Engine(config(2), world(2))
    assert daemon.state.known.actual is not None
    tampered = replace(daemon.state.known.actual, nft=None)
    repaired = sum(bool(daemon.plans(daemon.feed(ReadDone(world(2), tampered)))) for _ in range(20))
    assert repaired == 5
    daemon.now = 2.1
    assert daemon.plans(daemon.feed(ReadDone(world(2), tampered)))


def challenged(daemon: Engine, report: ApplyReport, *, read: bool = True) -> list[Level]:
    """Return how loud a refusal is told; then, unless told otherwise, the kernel is read again."""
    found = [e.level for e in daemon.feed(Applied(report)) if isinstance(e, Log)]
    if read:
        assert daemon.state.known.actual is not None
        daemon.feed(ReadDone(daemon.state.known.observed or world(1), daemon.state.known.actual))
    return found


def test_a_refused_operation_is_tried_again_and_said_once() -> None:
    daemon = Engine(config(1), world(1))
    op = next(op for op in daemon.plans()[0].plan.ops if isinstance(op, AddRule))
    report = ApplyReport(plan=daemon.plans()[0].plan, done=3, failures=(Failure(op, 1, "not permitted"),))
    assert challenged(daemon, report, read=False) == [Level.ERROR]
    assert daemon.state.agenda.read_at is not None
    assert challenged(daemon, report) == []
    assert challenged(daemon, report) == []


def test_what_is_refused_before_anybody_has_read_again_is_one_refusal() -> None:
    """Somebody flushes the table between two decisions that come one after the other."""
    daemon = Engine(config(1), world(1))
    op = next(op for op in daemon.plans()[0].plan.ops if isinstance(op, NftBatch))
    failures = [Failure(op, 2, f"no set {number}") for number in range(3)]
    reports = [ApplyReport(plan=daemon.plans()[0].plan, done=3, failures=(failure,)) for failure in failures]
    assert [challenged(daemon, report, read=False) for report in reports] == [[Level.INFO]] * 3
    assert challenged(daemon, reports[0]) == []
    assert challenged(daemon, reports[0]) == [Level.ERROR]


def test_a_route_that_is_refused_once_may_have_met_a_link_that_just_went_down() -> None:
    daemon = Engine(config(1), world(1))
    op = next(op for op in daemon.plans()[0].plan.ops if isinstance(op, PutRoute))
    report = ApplyReport(plan=daemon.plans()[0].plan, done=3, failures=(Failure(op, 100, "network is down"),))
    assert [challenged(daemon, report) for _ in range(4)] == [[Level.INFO], [Level.ERROR], [], []]


def test_a_transaction_that_somebody_took_the_table_from_is_tried_again_before_it_is_an_error() -> None:
    daemon = Engine(config(1), world(1))
    op = next(op for op in daemon.plans()[0].plan.ops if isinstance(op, NftBatch))
    for number, expected in ((2, [[Level.INFO], [Level.ERROR]]), (22, [[Level.ERROR], []])):
        report = ApplyReport(plan=daemon.plans()[0].plan, done=3, failures=(Failure(op, number, "refused"),))
        assert [challenged(daemon, report) for _ in range(2)] == expected
        daemon.feed(Applied(replace(report, failures=())))


def test_a_transaction_that_is_refused_in_another_way_each_time_is_told_from_the_second_time_on() -> None:
    daemon = Engine(config(1), world(1))
    op = next(op for op in daemon.plans()[0].plan.ops if isinstance(op, NftBatch))
    failures = [Failure(op, 2, f"nothing of the name {number}") for number in range(3)]
    reports = [ApplyReport(plan=daemon.plans()[0].plan, done=3, failures=(failure,)) for failure in failures]
    assert [challenged(daemon, report) for report in reports] == [[Level.INFO], [Level.ERROR], [Level.ERROR]]


FIRST = {first_table(TableId(6000)), TABLE_LOCAL}
"""Tables with the first routes of the box's own packets, which follow main's default."""


def test_a_route_that_no_carrier_lets_the_kernel_take_is_made_when_it_is_back_and_kept_meanwhile() -> None:
    def routes(plans: list[Apply]) -> set[Family]:
        routes = [op.route for p in plans for op in p.plan.ops if isinstance(op, PutRoute)]
        return {route.family for route in routes if route.link and route.table not in FIRST}

    dark = replace(world(2), links={"wan1": link(1, carrier=False), "wan2": link(2)})
    daemon = Engine(config(1), dark)
    assert routes(daemon.plans()) == {Family.V4}
    assert routes(daemon.plans(daemon.carrier(1, carrier=True))) == {Family.V6}
    lost = daemon.plans(daemon.carrier(1, carrier=False))
    kept = [op.route for p in lost for op in p.plan.ops if isinstance(op, PutRoute | DelRoute)]
    # The first route of the box itself follows main's default, which now leaves by no uplink.
    assert {route.table for route in kept} <= FIRST


def test_lost_notifications_lead_to_a_full_read() -> None:
    daemon = Engine(config(1), world(1))
    daemon.now = 1.0
    assert any(isinstance(e, Read) for e in daemon.feed(EventsLost()))


def test_a_burst_of_notifications_shares_one_more_read() -> None:
    daemon = Engine(config(1), world(1))
    daemon.now = 1.0
    reads = sum(isinstance(e, Read) for _ in range(50) for e in daemon.feed(EventsLost()))
    daemon.now = 1.03
    reads += sum(isinstance(e, Read) for e in daemon.feed(Tick()))
    assert reads == 2


def test_a_weight_change_touches_slots_and_nothing_else() -> None:
    daemon = Engine(config(2, [1, 1]), world(2))
    (plan,) = daemon.plans(daemon.feed(ConfigLoaded(config(2, [3, 1]))))
    (batch,) = plan.plan.ops
    assert isinstance(batch, NftBatch)
    assert "delete table" not in batch.text
    assert {line.split()[4] for line in batch.text.splitlines() if line.startswith("flush map")} == {
        slot_map("default", Family.V4),
        slot_map("default", Family.V6),
    }


def test_a_reload_without_change_writes_nothing() -> None:
    daemon = Engine(config(3), world(3))
    assert daemon.plans(daemon.feed(ConfigLoaded(config(3)))) == []


def test_connections_of_a_removed_uplink_are_let_go() -> None:
    daemon = Engine(config(2), world(2))
    effects = daemon.feed(ConfigLoaded(config(1)))
    assert {(e.uplink, e.mark) for e in effects if isinstance(e, ReleaseConnections)} == {("u2", 0x200)}
    assert daemon.state.decision.desired is not None
    assert 0x200 in daemon.state.decision.desired.nft.sets["dead_4"].elements


def test_a_restart_goes_on_letting_go_of_what_a_reload_removed_and_it_ends() -> None:
    before = Engine(config(2), world(2))
    before.feed(ConfigLoaded(config(1)))
    assert before.state.known.actual is not None
    after = Engine(config(1), world(2), before.state.known.actual)
    assert after.plans() == []
    assert set(after.state.decision.retired) == {0x200}
    assert after.state.decision.desired is not None
    assert 0x200 in after.state.decision.desired.nft.sets["dead_4"].elements
    after.now = agenda.deadline(after.state)
    for _ in range(10_000):
        if after.plans(after.feed(Tick())):
            break
        after.now = max(after.now, agenda.deadline(after.state))
    assert after.now == RETIREMENT
    assert not after.state.decision.desired.nft.sets["dead_4"].elements


def test_marks_of_another_mask_are_not_taken_for_removed_ones() -> None:
    before = Engine(config(2), world(2))
    before.feed(ConfigLoaded(config(1)))
    after = Engine(config(1, (), **{"global": {"mark_mask": 0xFF0000}}), world(2), before.state.known.actual)
    assert after.state.decision.retired == {}


def test_a_disabled_uplink_takes_no_new_connections_and_keeps_its_route() -> None:
    document = config(2).model_dump(by_alias=True, exclude_defaults=True)
    document["uplinks"]["u2"]["enabled"] = False
    daemon = Engine(type(config(1)).model_validate(document), world(2))
    assert serving(daemon) == ["u1"]
    assert daemon.state.decision.views["u2"].state is UplinkState.DISABLED
    assert daemon.state.decision.desired is not None
    assert any(route.link == "wan2" for route in daemon.state.decision.desired.routes)


def test_what_was_dead_before_a_restart_stays_dead_until_it_answers() -> None:
    first = Engine(config(2), world(2))
    fail_probes(first, "u1", Family.V4)
    second = Engine(config(2), world(2), first.state.known.actual)
    assert serving(second) == ["u2"]
    assert second.plans() == []


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"policies": {"default": {"tiers": [["u1", "u2"]], "on_down": "move"}}}, id="only moved"),
        pytest.param({"policies": {"default": {"tiers": [["u1", "u2"]], "on_down": "keep"}}}, id="nothing cut"),
    ],
)
def test_what_was_down_and_not_dead_before_a_restart_stays_down_too(more: dict[str, Any]) -> None:
    first = Engine(config(2, (), **more), world(2))
    fail_probes(first, "u1", Family.V4)
    assert first.state.known.actual is not None
    assert first.state.known.actual.nft is not None
    assert 0x100 not in first.state.known.actual.nft.sets["dead_4"]
    second = Engine(config(2, (), **more), world(2), first.state.known.actual)
    assert serving(second) == ["u2"]
    assert second.plans() == []


def test_settings_are_remembered_before_they_are_changed() -> None:
    path = "net/ipv4/conf/wan1/rp_filter"
    daemon = Engine(config(1), world(1), ActualState(sysctls={path: "1"}))
    assert daemon.state.known.memory.originals == {path: "1"}
    assert any(isinstance(op, SetSysctl) and op.sysctl.value == "0" for op in daemon.plans()[0].plan.ops)


@pytest.mark.parametrize(
    ("value", "passive", "warned"), [("0", True, True), ("0", False, False), ("1", True, False), ("2", True, False)]
)
def test_connection_tracking_that_tells_nothing_is_warned_of_when_somebody_wants_to_hear(
    value: str, passive: bool, warned: bool
) -> None:
    daemon = Engine(config(1, (), health={"passive": passive}), world(1), ActualState(sysctls={EVENTS: value}))
    assert any("nf_conntrack_events is 0" in warning for warning in daemon.state.decision.warnings) is warned
    assert EVENTS in engine.sysctl_paths(daemon.state, daemon.state.known.observed)


def test_strict_filtering_of_the_whole_box_is_outweighed_by_loose() -> None:
    present = {"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/wan1/rp_filter": "0"}
    (plan,) = Engine(config(1), world(1), ActualState(sysctls=present)).plans()
    assert Sysctl("net/ipv4/conf/wan1/rp_filter", "2") in [
        op.sysctl for op in plan.plan.ops if isinstance(op, SetSysctl)
    ]


def test_the_addresses_of_a_link_that_lost_them_lose_their_rules_after_everything_else() -> None:
    daemon = Engine(config(2), world(2))
    bare = replace(world(2), addresses=tuple(a for a in world(2).addresses if a.link != "wan2"))
    (plan,) = daemon.plans(daemon.feed(ReadDone(bare, daemon.state.known.actual or ActualState())))
    kinds = [type(op) for op in plan.plan.ops]
    assert kinds.index(NftBatch) < kinds.index(DelRule)


def test_what_is_assumed_after_a_plan_is_what_the_table_reads_as() -> None:
    daemon = Engine(config(2), world(2))
    assert daemon.state.decision.desired is not None
    assert daemon.state.known.actual is not None
    assert daemon.state.known.actual.nft == state_of(daemon.state.decision.desired.nft)


def test_an_event_about_a_stranger_changes_nothing() -> None:
    daemon = Engine(config(1), world(1))
    effects = daemon.feed(LinkChanged(replace(link(9), name="docker0")))
    assert daemon.plans(effects) == []


def test_the_first_write_of_a_setting_is_nobodys_tampering() -> None:
    daemon = Engine(config(2), world(2))
    assert daemon.state.known.actual is not None
    settings = {"net/ipv4/conf/wan1/rp_filter": "1"}
    effects = daemon.feed(ReadDone(world(2), replace(daemon.state.known.actual, sysctls=settings)))
    assert daemon.plans(effects)
    assert not [e for e in effects if isinstance(e, Log) and e.event == "drift.repaired"]


def refuse_the_table(daemon: Engine) -> list[Effect]:
    """Refuse the nft transaction of a change that the table cannot take."""
    plan = daemon.plans(daemon.feed(ReadDone(world(2), tampered(daemon))))[0].plan
    op = next(op for op in plan.ops if isinstance(op, NftBatch))
    return daemon.feed(Applied(ApplyReport(plan=plan, done=0, failures=(Failure(op, 17, "File exists"),))))


def tampered(daemon: Engine) -> ActualState:
    actual, desired = daemon.state.known.actual, daemon.state.decision.desired
    assert actual is not None
    assert desired is not None
    table = state_of(desired.nft)
    return replace(actual, nft=replace(table, sets={n: s for n, s in table.sets.items() if n != "own"}))


def test_a_table_that_refuses_a_change_twice_is_replaced_whole_at_once() -> None:
    daemon = Engine(config(2), world(2))
    refuse_the_table(daemon)
    assert daemon.state.agenda.read_at == daemon.now + 0.25
    assert Read() in refuse_the_table(daemon)
    (plan,) = daemon.plans(daemon.feed(ReadDone(world(2), tampered(daemon))))
    assert daemon.state.decision.desired is not None
    assert plan.plan.ops == (NftBatch(replace_text(daemon.state.decision.desired.nft)),)


def test_where_a_replacement_is_refused_a_change_has_its_turn_again() -> None:
    daemon = Engine(config(2), world(2))
    for _ in range(3):
        refuse_the_table(daemon)
    (plan,) = daemon.plans(daemon.feed(ReadDone(world(2), tampered(daemon))))
    assert not any("delete table" in op.text for op in plan.plan.ops if isinstance(op, NftBatch))


def test_refusals_count_until_a_read_finds_the_table_as_it_should_be() -> None:
    daemon = Engine(config(2), world(2))
    refuse_the_table(daemon)
    assert daemon.state.decision.desired is not None
    assert daemon.state.known.actual is not None
    daemon.feed(ReadDone(world(2), replace(daemon.state.known.actual, nft=state_of(daemon.state.decision.desired.nft))))
    refuse_the_table(daemon)
    assert daemon.state.agenda.read_at == daemon.now + 0.25


def test_a_refused_change_of_the_table_does_not_wait_for_what_else_is_refused() -> None:
    daemon = Engine(config(2), world(2))
    op = next(op for op in daemon.plans()[0].plan.ops if isinstance(op, AddRule))
    report = ApplyReport(plan=daemon.plans()[0].plan, done=3, failures=(Failure(op, 1, "not permitted"),))
    for _ in range(8):
        challenged(daemon, report)
    refuse_the_table(daemon)
    assert daemon.state.agenda.read_at == daemon.now + 0.25


@pytest.mark.parametrize(("took", "pause"), [(0.0, 10.0), (0.04, 10.0), (0.1, 20.0), (5.0, 60.0)])
def test_a_box_whose_read_takes_long_is_read_less_often_when_nothing_happens(took: float, pause: float) -> None:
    daemon = Engine(config(1), world(1))
    daemon.now = 100.0
    assert Read() in daemon.feed(Tick())
    daemon.now += took
    assert daemon.state.known.actual is not None
    daemon.feed(ReadDone(world(1), daemon.state.known.actual))
    daemon.now = 100.0 + pause - 0.01
    assert Read() not in daemon.feed(Tick())
    daemon.now = 100.0 + pause
    assert Read() in daemon.feed(Tick())


def test_one_step_forces_memory_to_disk_once() -> None:
    state, _ = engine.step(State(), ConfigLoaded(config(2)), 0.0)
    sysctls = {"net/ipv4/conf/all/accept_local": "0"}
    state, effects = engine.step(state, ReadDone(world(2), ActualState(sysctls=sysctls)), 0.0)
    (saved,) = [effect for effect in effects if isinstance(effect, SaveMemory)]
    assert saved.memory.originals == sysctls
    assert len(saved.memory.gateways) == 4


def test_a_table_that_no_packet_meets_counts_as_none() -> None:
    first = Engine(config(2), world(2))
    assert first.state.known.actual is not None
    assert first.state.known.actual.nft is not None
    whole = first.state.known.actual.nft
    half = replace(whole, chains={name: chain for name, chain in whole.chains.items() if chain.hook is None})
    again = Engine(config(2), world(2), replace(first.state.known.actual, nft=half))
    (op,) = [op for op in again.plans()[0].plan.ops if isinstance(op, NftBatch)]
    assert op.text[: op.inert].startswith("add table inet polywan\ndelete table inet polywan\n")
    assert "hook" not in op.text[: op.inert]
    assert any(isinstance(effect, ForgetUntranslated) for effect in again.effects)
