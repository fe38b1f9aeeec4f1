"""The loop and the control socket over FakeKernel and FakeProber: real asyncio, real unix socket, no root."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.routing import Route

from polywan.api import calls
from polywan.api.affinity import Affinity, Forgotten, KeptClient
from polywan.api.calls import Answered, Asked, Call
from polywan.api.flows import Flows
from polywan.api.requests import (
    DrainUplink,
    Nothing,
    OfPolicy,
    OfUplink,
    ToReload,
    What,
    WhatToPlan,
    WhomToForget,
    Words,
)
from polywan.api.running import Planned, Reloaded, Removed, Shown
from polywan.api.status import Status
from polywan.api.uplinks import UplinkChanged, UplinkReport, ViaGroup
from polywan.api.why import Explanation
from polywan.cli import group
from polywan.client import Client
from polywan.config import Config
from polywan.core.errors import ConfigError, ControlError, KernelError, Problem
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.plan import ActualState
from polywan.core.policy.operator import Verb
from polywan.core.state.events import ConfigLoaded, ForeignStateChanged
from polywan.core.state.memory import Memory
from polywan.core.state.state import State
from polywan.core.words import printable
from polywan.core.world.conntrack import Flow
from polywan.core.world.observed import Observed
from polywan.core.world.shared_device import NextHop
from polywan.daemon import store
from polywan.daemon.api.flows import Tracking
from polywan.daemon.api.http import Written, route, serving
from polywan.daemon.api.uplinks import Uplinks
from polywan.daemon.loop import Daemon
from polywan.kernel.fake.kernel import FakeKernel
from polywan.kernel.fake.tracker import Connection, FakeTracker
from support.daemons import daemon_over, running
from support.documents import status
from support.engine_world import config, link


def with_daemon(
    state_dir: Path,
    story: Callable[[Daemon, FakeKernel], Awaitable[None]],
    memory: Memory | None = None,
    prepare: Callable[[FakeKernel], None] = lambda _: None,
) -> None:
    """Run a story beside a daemon of three uplinks that is ready; `prepare` comes before it starts."""

    async def play() -> None:
        async with running(state_dir, 3, memory=memory, prepare=prepare) as (daemon, kernel):
            await story(daemon, kernel)

    asyncio.run(play())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_the_daemon_programs_the_kernel_and_remembers_its_numbers(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        assert kernel.nft is not None
        assert {rule.mark[0] for rule in kernel.rules if rule.mark} >= {0x100, 0x200, 0x300}
        assert store.load(tmp_path)[0].ids == {"u1": 1, "u2": 2, "u3": 3}

    with_daemon(tmp_path, story)


def test_a_carrier_event_reaches_the_kernel(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        kernel.connections_list.append(Connection(mark=0x100))
        kernel.set_link(link(1, carrier=False))
        await until(lambda: kernel.nft is not None and 0x100 in kernel.nft.sets["dead_4"])
        await until(lambda: not kernel.connections_list)

    with_daemon(tmp_path, story)


def test_what_a_timer_brings_at_once_is_taken_at_once(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        def rounds() -> int:
            return sum(probes.number for probes in daemon.state.health.rounds.values())

        before = rounds()
        # The prober of these tests reports while a round is being started.
        await until(lambda: rounds() > before)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not any(probes.open for probes in daemon.state.health.rounds.values())

    with_daemon(tmp_path, story)


def test_what_comes_after_the_loop_has_ended_changes_nothing(tmp_path: Path) -> None:
    daemons: list[Daemon] = []

    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        daemons.append(daemon)

    with_daemon(tmp_path, story)
    (daemon,) = daemons
    before = daemon.state

    async def late() -> None:
        daemon.post(ForeignStateChanged("address"))
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(late())
    assert daemon.state is before


def test_settling_waits_until_the_kernel_was_read_back(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        await daemon.settle(ConfigLoaded(config(3, [3, 2, 1])))
        assert kernel.nft is not None
        assert len(kernel.nft.maps["slots_4_default"]) == 6

    with_daemon(tmp_path, story)


def test_what_was_read_before_a_decision_of_our_own_is_not_taken_for_the_work_of_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "polywan")

    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        loop, read = asyncio.get_running_loop(), kernel.read
        asked: list[Sequence[str]] = []

        def then_somebody_asks(sysctls: Sequence[str], kinds: frozenset[str] | None = None) -> ActualState:
            actual = read(sysctls, kinds)
            if not asked:
                asked.append(sysctls)
                loop.call_soon_threadsafe(daemon.post, ConfigLoaded(config(3, [1, 2, 1])))
            return actual

        kernel.read = then_somebody_asks  # type: ignore[method-assign] # the moment in which it ends is the point
        await daemon.settle(ForeignStateChanged("address"))
        await daemon.settle(ForeignStateChanged("address"))
        assert asked
        assert kernel.nft is not None
        assert len(kernel.nft.maps["slots_4_default"]) == 4

    with_daemon(tmp_path, story)
    assert "drift.repaired" not in caplog.text


def test_who_began_after_the_rule_set_keeps_its_connection_however_long_the_search_takes(tmp_path: Path) -> None:
    searches: list[tuple[float, int]] = []

    def slowly(kernel: FakeKernel) -> None:
        drop = kernel.drop

        def search(mark: int, mask: int, family: Family, doomed: Callable[[Flow], bool]) -> int:
            began = searches[0][0] if searches else time.monotonic()
            age = int(1000 * (time.monotonic() - began)) / 1000
            kernel.connections_list = [Connection(mark=0, family=family, state="UNREPLIED", age=age)]
            searches.append((began, drop(mark, mask, family, doomed)))
            time.sleep(0.02)
            return 0

        kernel.drop = search  # type: ignore[method-assign] # the time that it takes is the point

    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        await until(lambda: len(searches) == len(FAMILIES))
        assert [gone for _, gone in searches] == [0, 0]

    with_daemon(tmp_path, story, prepare=slowly)


def test_an_effect_that_fails_in_a_way_nobody_thought_of_ends_the_daemon_instead_of_being_lost(tmp_path: Path) -> None:
    async def play() -> None:
        kernel = FakeKernel()

        def broken(hops: Collection[NextHop] = ()) -> Observed:
            raise ZeroDivisionError

        kernel.observe = broken  # type: ignore[method-assign] # no input is known that does it
        daemon = daemon_over(kernel, tmp_path)
        async with asyncio.timeout(5):
            with pytest.raises(ExceptionGroup) as caught:
                await daemon.run()
        assert caught.group_contains(ZeroDivisionError)
        kernel.close()

    asyncio.run(play())


def test_traffic_counts_connections_by_their_mark(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        kernel.connections_list += [Connection(mark=0x200), Connection(mark=0x200, family=Family.V6)]
        traffic = await daemon.meter.traffic()
        assert [traffic[n].connections for n in ("u1", "u2", "u3")] == [0, 2, 0]

    with_daemon(tmp_path, story)


def test_an_uplink_that_is_pointed_at_another_device_has_no_rate_of_the_difference(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        kernel.links["wan3"] = replace(kernel.links["wan3"], rx_bytes=10**15, tx_bytes=10**15)
        await daemon.meter.traffic()
        swapped = {"u1": {"interface": "wan3"}, "u3": {"interface": "wan1"}, "u2": {"interface": "wan2"}}
        await daemon.settle(ConfigLoaded(Config.model_validate({"uplinks": swapped})))
        daemon.meter._shown = None
        traffic = await daemon.meter.traffic()
        assert traffic["u1"].rx_bytes == 10**15
        assert {(t.rx_bps, t.tx_bps) for t in traffic.values()} == {(0.0, 0.0)}

    with_daemon(tmp_path, story)


def test_a_state_directory_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        assert kernel.nft is not None

    with_daemon(blocked / "state", story)
    assert "state.unwritable" in caplog.text


def test_names_from_outside_cannot_forge_log_lines() -> None:
    assert printable("wan\n2026 ERROR fake\x1b[2J") == "wan\\x0a2026 ERROR fake\\x1b[2J"


EMPTY = status()


class Api:
    """What the socket offers, without a daemon behind it."""

    async def status(self, _: Nothing) -> Status:
        return EMPTY

    async def show(self, asked: What) -> Shown:
        return Shown(text=f"{asked.what}\n")

    async def plan(self, asked: WhatToPlan) -> Planned:
        return Planned(ops=(), warnings=(str(asked),))

    async def reload(self, _: ToReload) -> Reloaded:
        raise ConfigError([Problem("f.toml:3", "uplinks.a", "is bad", "mend it")])

    async def flows(self, asked: Words) -> Written[Flows]:
        if asked.words.get("uplink") == "broken":
            raise KernelError("dump", 105, "no buffer space")
        columns = json.dumps([f"{key}={word}" for key, word in asked.words.items()]).encode()
        return Written([b'{"schema":1,"columns":', columns, b',"flows":[],"totals":[]}'])

    async def affinity(self, asked: OfPolicy) -> Affinity:
        if asked.policy == "none":
            raise ControlError("there is no policy none", 404)
        kept = KeptClient(client="c", server=None, policy=str(asked.policy), uplink="u", expires_s=1)
        return Affinity(schema=1, clients=(kept,))

    async def clear(self, asked: WhomToForget) -> Forgotten:
        raise ControlError(str(asked), 404)

    async def down(self, _: Nothing) -> Removed:
        return Removed(removed=1, failed=(), unrestored=(), problems=())

    async def why(self, asked: Words) -> Explanation:
        raise ControlError(str(dict(asked.words)), 400)

    async def via(self, asked: OfUplink) -> ViaGroup:
        raise ControlError(f"there is no uplink {asked.name}", 404)

    async def enable(self, asked: OfUplink) -> UplinkChanged:
        return UplinkChanged(uplink=asked.name, state="up", reason="", warnings=(), saved=True)

    async def drain(self, asked: DrainUplink) -> UplinkChanged:
        if asked.deadline == "soon":
            raise ControlError("deadline: expected a duration", 400)
        return UplinkChanged(uplink=asked.name, state="draining", reason=str(asked.deadline), warnings=(), saved=True)

    async def test(self, asked: OfUplink) -> UplinkReport:
        raise RuntimeError(f"a\x1b[2Jb {asked.name}")

    def routes(self) -> list[Route]:
        return [
            route(calls.STATUS, self.status),
            route(calls.SHOW, self.show),
            route(calls.PLAN, self.plan),
            route(calls.RELOAD, self.reload),
            route(calls.FLOWS, self.flows),
            route(calls.AFFINITY, self.affinity),
            route(calls.CLEAR_AFFINITY, self.clear),
            route(calls.DOWN, self.down),
            route(calls.WHY, self.why),
            route(calls.EXEC_VIA, self.via),
            route(calls.ENABLE, self.enable),
            route(calls.DRAIN, self.drain),
            route(calls.TEST, self.test),
        ]


def ask(directory: Path, call: Call[Asked, Answered], asked: Asked) -> Answered:
    async def play() -> Answered:
        async with serving(Api().routes(), directory):
            return await asyncio.to_thread(Client(directory).ask, call, asked)

    return asyncio.run(play())


def test_the_socket_answers_status(tmp_path: Path) -> None:
    assert ask(tmp_path, calls.STATUS, Nothing()) == EMPTY


def test_the_socket_is_for_owner_and_group_only(tmp_path: Path) -> None:
    async def play() -> int:
        async with serving(Api().routes(), tmp_path):
            return (tmp_path / "control.sock").stat().st_mode & 0o777

    assert oct(asyncio.run(play())) == "0o660"


def test_the_socket_is_gone_afterwards(tmp_path: Path) -> None:
    ask(tmp_path, calls.STATUS, Nothing())
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_socket_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("")
    assert ask(tmp_path, calls.STATUS, Nothing()) == EMPTY


def test_a_refused_reload_arrives_with_every_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(tmp_path, calls.RELOAD, ToReload())
    assert str(caught.value) == "f.toml:3: uplinks.a: is bad (mend it)"


def test_what_is_to_be_shown_is_part_of_the_path(tmp_path: Path) -> None:
    assert ask(tmp_path, calls.SHOW, What(what="nft")).text == "nft\n"


def test_a_question_travels_word_by_word(tmp_path: Path) -> None:
    words = {"to": "[2001:db8::1]:443", "cgroup": "a b&c=d"}
    with pytest.raises(ControlError) as caught:
        ask(tmp_path, calls.WHY, Words(words=words))
    assert (caught.value.status, str(caught.value)) == (400, str(words))


def test_down_is_carried_out_for_the_daemons_own_user(tmp_path: Path) -> None:
    assert ask(tmp_path, calls.DOWN, Nothing()).removed == 1


def test_a_name_is_part_of_the_path_whatever_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(ControlError) as caught:
        ask(tmp_path, calls.EXEC_VIA, OfUplink(name="a/../b c?"))
    assert (caught.value.status, str(caught.value)) == (404, "there is no uplink a/../b c?")


def test_files_to_plan_travel_in_the_body(tmp_path: Path) -> None:
    asked = WhatToPlan(files={"b.toml": "x = 1\n", "a.toml": ""}, namespace="net:[1]")
    assert ask(tmp_path, calls.PLAN, asked).warnings == (str(asked),)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "expected a JSON object with files and namespace"),
        ("[]", "expected a JSON object with files and namespace"),
        ('{"namespace": "x"}', "expected a JSON object with files and namespace; files is missing"),
        ('{"files": {"a": 3}, "namespace": "x"}', "…; files.a: expected text, got 3"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(tmp_path: Path, body: str, text: str) -> None:
    status, refused = said(tmp_path, "POST", "/v1/plan", body)
    assert (status, refused.replace("expected a JSON object with files and namespace;", "…;")) == (
        400,
        text.replace("expected a JSON object with files and namespace;", "…;"),
    )


def said(directory: Path, method: str, path: str, body: str = "") -> tuple[int, str]:
    """Return status and text of the refusal of a request that no client of ours makes."""

    def request() -> tuple[int, str]:
        status, _, answer = Client(directory)._send(method, path, body)
        return status, str(answer["error"])

    async def play() -> tuple[int, str]:
        async with serving(Api().routes(), directory):
            return await asyncio.to_thread(request)

    return asyncio.run(play())


def test_the_socket_lists_the_connections_that_are_wanted(tmp_path: Path) -> None:
    answer = ask(tmp_path, calls.FLOWS, Words(words={"client": "10.0.0.0/8", "uplink": "a & b"}))
    assert answer.columns == ("client=10.0.0.0/8", "uplink=a & b")


def test_what_the_kernel_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no buffer space") as caught:
        ask(tmp_path, calls.FLOWS, Words(words={"uplink": "broken"}))
    assert caught.value.status == 500


def test_what_nobody_thought_of_is_told_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(ControlError) as caught:
        ask(tmp_path, calls.TEST, OfUplink(name="isp1"))
    text = "polywan failed to answer: RuntimeError: a\\x1b[2Jb isp1"
    assert (caught.value.status, str(caught.value)) == (500, text)


def test_the_socket_lists_clients_of_a_policy_or_of_all(tmp_path: Path) -> None:
    assert ask(tmp_path, calls.AFFINITY, OfPolicy()).clients[0].policy == "None"
    assert ask(tmp_path, calls.AFFINITY, OfPolicy(policy="two")).clients[0].policy == "two"
    with pytest.raises(ControlError, match="no policy none"):
        ask(tmp_path, calls.AFFINITY, OfPolicy(policy="none"))


def test_the_socket_forgets_clients(tmp_path: Path) -> None:
    whom = WhomToForget(address="10.0.0.1", policy="two")
    with pytest.raises(ControlError) as caught:
        ask(tmp_path, calls.CLEAR_AFFINITY, whom)
    assert str(caught.value) == str(whom)


@pytest.mark.parametrize("deadline", [None, "5m"])
def test_the_socket_takes_orders_for_an_uplink(tmp_path: Path, deadline: str | None) -> None:
    answer = ask(tmp_path, calls.DRAIN, DrainUplink(name="a/b c", deadline=deadline))
    assert (answer.uplink, answer.state, answer.reason) == ("a/b c", "draining", str(deadline))
    assert ask(tmp_path, calls.ENABLE, OfUplink(name="a/drain")).uplink == "a/drain"


def test_an_order_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="expected a duration") as caught:
        ask(tmp_path, calls.DRAIN, DrainUplink(name="isp1", deadline="soon"))
    assert caught.value.status == 400


def test_an_order_is_in_force_when_it_is_answered(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        uplinks = Uplinks(daemon)
        answer = await uplinks.order("u2", Verb.DISABLE, None)
        assert (answer.state, answer.warnings) == ("disabled", ())
        assert kernel.nft is not None
        assert "goto to_u2" not in kernel.nft.maps["slots_4_default"].values()
        assert store.load(tmp_path)[0].orders["u2"].verb is Verb.DISABLE
        await uplinks.order("u3", Verb.DRAIN, "30")
        answer = await uplinks.order("u1", Verb.DISABLE, None)
        assert any("policy default (IPv4)" in text for text in answer.warnings)
        with pytest.raises(ControlError, match="deadline: expected"):
            await uplinks.order("u1", Verb.DRAIN, "soon")
        with pytest.raises(ControlError, match='did you mean "u1"'):
            await uplinks.order("u11", Verb.DRAIN, None)

    with_daemon(tmp_path, story)


def test_an_order_that_cannot_be_written_down_says_that_a_restart_forgets_it(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        done = await Uplinks(daemon).order("u1", Verb.DISABLE, None)
        assert done.state == "disabled"
        assert [text for text in done.warnings if "lost on a restart" in text]
        assert [text for text in daemon.troubles if "a restart will lose the current state" in text]
        assert done.saved is False

    with_daemon(blocked / "state", story)


def test_what_could_not_be_written_down_is_written_as_soon_as_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "polywan")
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        await Uplinks(daemon).order("u1", Verb.DISABLE, None)
        blocked.unlink()
        await daemon.settle(ForeignStateChanged("address"))
        assert (daemon.unsaved, daemon.troubles) == ("", ())
        assert store.load(blocked / "state")[0].orders["u1"].verb is Verb.DISABLE
        done = await Uplinks(daemon).order("u1", Verb.DISABLE, None)
        assert (done.saved, done.warnings) == (True, ())

    with_daemon(blocked / "state", story)
    assert caplog.text.count("state.unwritable") == 1
    assert "state.written" in caplog.text


@pytest.mark.parametrize(("saved", "code", "until"), [(True, 0, ""), (False, 1, " until the daemon restarts")])
def test_an_order_that_is_not_kept_is_no_success(
    monkeypatch: pytest.MonkeyPatch, saved: bool, code: int, until: str
) -> None:
    answer = UplinkChanged(uplink="u1", state="disabled", reason="by hand", warnings=(), saved=saved)
    monkeypatch.setattr(Client, "ask", lambda *_: answer)
    done = CliRunner().invoke(group, ["uplink", "disable", "u1"])
    assert (done.exit_code, done.output) == (code, f"u1 is disabled{until}: by hand\n")


def test_an_uplink_that_is_drained_at_once_is_empty_soon(tmp_path: Path) -> None:
    async def story(daemon: Daemon, kernel: FakeKernel) -> None:
        kernel.connections_list += [Connection(mark=0x200, protocol="tcp"), Connection(mark=0x100, protocol="tcp")]
        await Uplinks(daemon).order("u2", Verb.DRAIN, "0")
        await until(lambda: daemon.state.decision.views["u2"].state == "drained")
        assert [c.mark for c in kernel.connections_list] == [0x100]

    with_daemon(tmp_path, story)


@pytest.mark.parametrize("asked", [WhomToForget(), WhomToForget(address="10.0.0.1", all="true")])
def test_forgetting_nobody_in_particular_has_to_be_said_in_so_many_words(asked: WhomToForget) -> None:
    with pytest.raises(ControlError, match="either address=ADDRESS or all=true") as caught:
        asyncio.run(Tracking(FakeTracker(), State).clear(asked))
    assert caught.value.status == 400
