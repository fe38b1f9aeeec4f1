"""What rules refer to: what is found, what resolvers say, and who is told when."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from polywan.config import Config
from polywan.core.net import IPAddress
from polywan.core.plan.plan import ActualState, describe
from polywan.core.state.events import Event, LookupsChanged
from polywan.core.world import domains
from polywan.core.world.domains import Reply
from polywan.core.world.lookups import Lookups, PrefixList, users, wanted
from polywan.core.world.prefix_lists import parse
from polywan.daemon import offline
from polywan.daemon.lookups import machine
from polywan.daemon.lookups import watcher as lookups
from polywan.daemon.lookups.resolver import Resolver, SystemResolver
from polywan.daemon.lookups.watcher import LookupWatcher, look_once
from support.dns_server import DnsServer, Zone
from support.engine_world import config, world
from support.files import write

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def addresses(*texts: str) -> tuple[IPAddress, ...]:
    return tuple(map(ip_address, texts))


def steering(*rules: dict[str, Any]) -> Config:
    return config(1, rules=list(rules))


def test_lists_and_domains_are_known_by_the_rules_that_name_them() -> None:
    config = steering(
        {"list": "/a", "uplink": "u1"}, {"not": {"list": "/a"}, "domains": ["x.example", "y.example"], "uplink": "u1"}
    )
    assert users(config) == {"/a": (1, 2), "x.example": (2,), "y.example": (2,)}
    assert wanted(config).lists == ("/a",)


def test_without_control_groups_nothing_is_known_and_nothing_fails(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:20 / / rw - ext4 /dev/sda rw\n")
    assert machine.look(wanted(steering({"cgroup": "x.slice", "uplink": "u1"})), machine.Local(), mounts).cgroups == {}
    assert machine.look(wanted(steering()), machine.Local(), tmp_path / "absent").cgroups == {}


NAMES = {
    "both.example": Zone(["192.0.2.1", "2001:db8::1"], 60),
    "four.example": Zone(["192.0.2.1"], 300),
    "www.example": Zone(alias="four.example", ttl=20),
    "empty.example": Zone(),
}


class FakeResolver:
    """Answers from a table, at once."""

    def __init__(self, names: dict[str, Zone]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def ask(self, name: str) -> Reply:
        self.asked.append(name)
        zone, ttl = self.names.get(name), float("inf")
        while zone is not None and zone.alias:
            ttl = min(ttl, zone.ttl)
            zone = self.names.get(zone.alias)
        if zone is None:
            return Reply(problem="no such name (NXDOMAIN)")
        if not zone.addresses:
            return Reply()
        return Reply(addresses=addresses(*zone.addresses), ttl=min(ttl, zone.ttl))


def bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def settings(tmp_path: Path) -> str:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    return str(path)


@contextmanager
def resolvers(kind: str, tmp_path: Path) -> Iterator[Resolver]:
    if kind == "fake":
        yield FakeResolver(NAMES)
        return
    with DnsServer(bound(), NAMES) as server:
        yield SystemResolver(settings(tmp_path), server.port)


@pytest.mark.parametrize("kind", ["fake", "system"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("both.example", Reply(addresses=(ONE, TWO), ttl=60)),
        ("four.example", Reply(addresses=(ONE,), ttl=300)),
        ("www.example", Reply(addresses=(ONE,), ttl=20)),
        ("empty.example", Reply()),
        ("absent.example", Reply(problem="no such name (NXDOMAIN)")),
    ],
)
def test_a_resolver_tells_addresses_and_the_shortest_time_to_live(
    kind: str, name: str, expected: Reply, tmp_path: Path
) -> None:
    with resolvers(kind, tmp_path) as resolver:
        assert asyncio.run(resolver.ask(name)) == expected


def test_a_machine_without_resolvers_is_told_so(tmp_path: Path) -> None:
    empty = tmp_path / "resolv.conf"
    empty.write_text("# nothing\n")
    for path in (empty, tmp_path / "absent"):
        assert asyncio.run(SystemResolver(str(path)).ask("a.example")) == Reply(problem=f"{path} names no resolver")


def test_a_resolver_that_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polywan.daemon.lookups.resolver.LIFETIME", 0.1)
    with DnsServer(bound(), NAMES) as server:
        server.silent = True
        reply = asyncio.run(SystemResolver(settings(tmp_path), server.port).ask("four.example"))
    assert reply == Reply(problem="no resolver answered in time")


def test_settings_that_are_rewritten_count_for_the_next_question(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("")
    with DnsServer(bound(), NAMES) as server:
        resolver = SystemResolver(str(path), server.port)
        assert asyncio.run(resolver.ask("four.example")).problem
        settings(tmp_path)
        assert asyncio.run(resolver.ask("four.example")).addresses == (ONE,)


class Sink:
    """Collects what is posted."""

    def __init__(self) -> None:
        self.posted: asyncio.Queue[Lookups] = asyncio.Queue()
        self.settled: list[Lookups] = []
        self.staged: list[list[str]] = []

    def post(self, event: Event) -> None:
        assert isinstance(event, LookupsChanged)
        self.posted.put_nowait(event.lookups)

    async def settle(self, event: Event) -> None:
        assert isinstance(event, LookupsChanged)
        self.settled.append(event.lookups)

    async def stage(self, lists: Iterable[PrefixList]) -> None:
        self.staged.append([found.digest for found in lists])

    async def until(self, condition: Callable[[Lookups], bool]) -> Lookups:
        while not condition(found := await self.posted.get()):
            pass
        return found


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, so that no test has to wait."""
    monkeypatch.setattr(lookups, "POLL", 0.005)
    monkeypatch.setattr(lookups, "FILE_QUIET", 0.005)
    monkeypatch.setattr(machine, "FILE_QUIET", 0.02)
    monkeypatch.setattr(lookups, "REPLY_FOLD", 0.001)
    monkeypatch.setattr(domains, "ASK", (0.005, 1.0))
    monkeypatch.setattr(domains, "NAME_RETRY", (0.005, 0.005))


def watched(resolver: Resolver, story: Callable[[LookupWatcher, Sink], Awaitable[None]]) -> None:
    """Run a story beside a watcher."""

    async def play() -> None:
        sink = Sink()
        watcher = LookupWatcher(sink, resolver)
        runner = asyncio.create_task(watcher.run())
        try:
            async with asyncio.timeout(10):
                await story(watcher, sink)
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    asyncio.run(play())


def test_lists_are_known_before_a_configuration_is_in_force(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        found = await watcher.follow(steering({"list": path, "uplink": "u1"}))
        assert found.lists[path].v4 == ("10.0.0.0/8",)
        assert sink.staged == [[found.lists[path].digest]]

    watched(FakeResolver({}), story)


@pytest.mark.usefixtures("hurried")
def test_a_changed_file_is_posted(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        await watcher.follow(steering({"list": path, "uplink": "u1"}))
        write(tmp_path / "list", "11.0.0.0/8\n")
        await sink.until(lambda found: found.lists[path].v4 == ("11.0.0.0/8",))

    watched(FakeResolver({}), story)


@pytest.mark.usefixtures("hurried")
def test_a_problem_is_logged_once_and_its_end_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    caplog.set_level("INFO", "polywan")

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        await watcher.follow(steering({"list": path, "uplink": "u1"}))
        write(tmp_path / "list", "x\n")
        bad = await sink.until(lambda found: bool(found.problems))
        assert bad.lists[path].v4 == ("10.0.0.0/8",)
        assert bad.problems[0].endswith("; the last good contents stay in force")
        for _ in range(3):
            await watcher.refresh()
        write(tmp_path / "list", "10.0.0.0/8\n")
        await sink.until(lambda found: not found.problems)

    watched(FakeResolver({}), story)
    assert [caplog.text.count(word) for word in ("lookup.failed", "lookup.recovered")] == [1, 1]


def test_a_list_that_is_missing_says_which_rule_never_matches(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        found = await watcher.follow(steering({"uplink": "u1"}, {"list": path, "uplink": "u1"}))
        assert found.lists == {}
        assert found.problems[0].endswith("; this condition never matches (rule 2)")

    watched(FakeResolver({}), story)


def test_the_first_configuration_waits_a_moment_for_names() -> None:
    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        found = await watcher.follow(steering({"domains": "both.example", "uplink": "u1"}), 5.0)
        assert found.domains == {"both.example": (ONE, TWO)}

    watched(FakeResolver(NAMES), story)


@pytest.mark.usefixtures("hurried")
def test_a_reload_does_not_wait_for_names() -> None:
    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        found = await watcher.follow(steering({"domains": "both.example", "uplink": "u1"}))
        assert found.domains == {}
        assert (await sink.until(lambda found: bool(found.domains))).domains == {"both.example": (ONE, TWO)}

    watched(FakeResolver(NAMES), story)


@pytest.mark.usefixtures("hurried")
def test_changed_answers_are_posted() -> None:
    resolver = FakeResolver({"a.example": Zone(["192.0.2.1"])})

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        await watcher.follow(steering({"domains": "a.example", "uplink": "u1"}), 5.0)
        resolver.names["a.example"] = Zone(["192.0.2.9"], 0)
        await watcher.follow(steering({"uplink": "u1"}))
        await watcher.follow(steering({"domains": "a.example", "uplink": "u1"}))
        await sink.until(lambda found: found.domains == {"a.example": addresses("192.0.2.9")})
        resolver.names["a.example"] = Zone(["192.0.2.10"], 0)
        await sink.until(lambda found: found.domains == {"a.example": addresses("192.0.2.9", "192.0.2.10")})

    watched(resolver, story)


@pytest.mark.usefixtures("hurried")
def test_a_name_that_resolves_to_nothing_is_a_problem_until_it_does() -> None:
    resolver = FakeResolver({})

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        found = await watcher.follow(steering({"domains": "a.example", "uplink": "u1"}), 5.0)
        (problem,) = found.problems
        assert problem == "a.example does not resolve: no such name (NXDOMAIN); this condition never matches (rule 1)"
        resolver.names["a.example"] = Zone(["192.0.2.1"])
        assert (await sink.until(lambda found: bool(found.domains))).problems == ()

    watched(resolver, story)


@pytest.mark.usefixtures("hurried")
def test_nothing_is_posted_as_long_as_nothing_differs(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    resolver = FakeResolver({"a.example": Zone(["192.0.2.1"], 0)})

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        await watcher.follow(steering({"list": path, "domains": "a.example", "uplink": "u1"}), 5.0)
        while not sink.posted.empty():
            sink.posted.get_nowait()
        while len(resolver.asked) < 5:
            await asyncio.sleep(0.001)
        assert sink.posted.empty()

    watched(resolver, story)


def test_refreshing_settles_before_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "list"

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        await watcher.follow(steering({"list": str(path), "uplink": "u1"}))
        write(path, "10.0.0.0/8\n")
        await watcher.refresh()
        assert sink.settled[-1].lists[str(path)].v4 == ("10.0.0.0/8",)

    watched(FakeResolver({}), story)


def test_what_is_no_longer_wanted_is_forgotten(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        await watcher.follow(steering({"list": path, "domains": "both.example", "uplink": "u1"}), 5.0)
        found = await watcher.follow(steering())
        assert (found.lists, found.domains) == ({}, {})

    watched(FakeResolver(NAMES), story)


def test_a_reload_keeps_what_is_still_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    resolver = FakeResolver(NAMES)

    async def story(watcher: LookupWatcher, sink: Sink) -> None:
        rule = {"list": path, "domains": "both.example", "uplink": "u1"}
        before = await watcher.follow(steering(rule), 5.0)
        after = await watcher.follow(steering(rule, {"uplink": "u1"}))
        assert after.domains == before.domains
        assert after.lists[path] is before.lists[path]
        assert resolver.asked == ["both.example"]

    watched(resolver, story)


def test_looking_once_finds_files_and_names(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "10.0.0.0/8\n")
    config = steering({"list": path, "domains": ["both.example", "absent.example"], "uplink": "u1"})
    found = asyncio.run(look_once(config, FakeResolver(NAMES)))
    assert found.lists[path].v4 == ("10.0.0.0/8",)
    assert found.domains == {"both.example": (ONE, TWO)}
    assert len(found.problems) == 1
    assert asyncio.run(look_once(config, None)).domains == {}


def planned(tmp_path: Path, config: Config, known: Lookups) -> tuple[str, tuple[str, ...]]:
    """Return the text of the plan against a recording, and its warnings."""
    file = tmp_path / "box.json"
    file.write_bytes(offline.dump(offline.recording(world(1), ActualState(), known)))
    plan, warnings = offline.plan(config, tmp_path / "state", file)
    return "\n".join(map(describe, plan.ops)), warnings


def test_a_recording_brings_its_lists_and_names_along(tmp_path: Path) -> None:
    config = steering({"list": "/absent", "uplink": "u1"}, {"domains": "both.example", "uplink": "u1"})
    held = parse("198.18.0.0/15\n")
    assert isinstance(held, PrefixList)
    text, warnings = planned(tmp_path, config, Lookups(lists={"/absent": held}, domains={"both.example": (ONE, TWO)}))
    assert "198.18.0.0/15" in text
    assert "192.0.2.1" in text
    assert not [w for w in warnings if "/absent" in w]


def test_lists_that_were_not_recorded_are_read_here(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "198.18.0.0/15\n")
    assert "198.18.0.0/15" in planned(tmp_path, steering({"list": path, "uplink": "u1"}), Lookups())[0]


def test_a_plan_warns_of_lists_that_are_neither_here_nor_recorded(tmp_path: Path) -> None:
    _, warnings = planned(tmp_path, steering({"list": "/absent", "uplink": "u1"}), Lookups())
    assert [w for w in warnings if w.startswith("/absent: cannot be read")]
