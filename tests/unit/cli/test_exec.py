"""`polywan exec` without a kernel: the rules, the groups, and how the command ends."""

from __future__ import annotations

import asyncio
import errno
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pytest

from polywan.api import calls
from polywan.api.codec import decode
from polywan.api.requests import OfUplink
from polywan.api.uplinks import ViaGroup
from polywan.cli import exec as verb
from polywan.client import Client
from polywan.core.errors import ControlError, MissingFeature, NotPermitted, PolywanError
from polywan.core.plan.plan import NftBatch
from polywan.core.ruleset.exec_via import in_force
from polywan.core.ruleset.model import NftTable, change_text, state_of
from polywan.core.state.events import LookupsChanged
from polywan.core.world.lookups import ControlGroup, Lookups, wanted
from polywan.daemon.api.exec_via import look
from polywan.kernel import cgroups as groups
from support.daemons import running
from support.engine_world import Engine, config, world

TOP = {"polywan": ControlGroup("unified/polywan", 1, 50)}
GROUPS = {**TOP, "polywan/u1": ControlGroup("unified/polywan/u1", 2, 51)}


def daemon_with(cgroups: dict[str, ControlGroup], **more: Any) -> Engine:
    daemon = Engine(config(2, **more), world(2))
    daemon.feed(LookupsChanged(Lookups(cgroups=cgroups)))
    return daemon


def table(daemon: Engine) -> NftTable:
    assert daemon.state.decision.desired is not None
    return daemon.state.decision.desired.nft


def texts(table: NftTable, chain: str) -> list[str]:
    return [rule.text for rule in table.chains[chain].rules]


def test_without_programs_nobody_is_asked_for_a_group() -> None:
    nft_table = table(Engine(config(2), world(2)))
    assert not any("socket" in text for text in texts(nft_table, "classify_local"))
    assert nft_table.maps["via_4"].elements == {}


def test_programs_are_asked_for_before_anything_else_is_looked_at() -> None:
    nft_table = table(daemon_with(GROUPS))
    assert texts(nft_table, "classify_local")[0] == 'socket cgroupv2 level 1 "unified/polywan" goto via'
    assert texts(nft_table, "via") == [
        'socket cgroupv2 level 2 "unified/polywan/u1" meta mark set meta mark & 0xffffc0ff | 0x00000100 goto via_mark',
        "goto via_mark",
    ]


def test_what_no_map_takes_is_refused() -> None:
    assert texts(table(daemon_with(GROUPS)), "via_mark")[-2:] == [
        "meta l4proto tcp reject with tcp reset",
        "reject with icmpx type no-route",
    ]


def test_a_serving_uplink_takes_its_programs_in_both_families() -> None:
    nft_table = table(daemon_with(GROUPS))
    assert nft_table.maps["via_4"].elements == nft_table.maps["via_6"].elements == {0x100: "goto to_u1"}


def test_an_uplink_without_carrier_takes_none() -> None:
    daemon = daemon_with(GROUPS)
    daemon.carrier(1, carrier=False)
    assert table(daemon).maps["via_4"].elements == {}


def test_a_failover_names_no_group_since_it_may_be_gone() -> None:
    daemon = daemon_with(GROUPS)
    before = state_of(table(daemon))
    daemon.carrier(1, carrier=False)
    change = change_text(table(daemon), before)
    assert "via_4" in change
    assert "cgroup" not in change


def test_a_disabled_uplink_takes_none() -> None:
    uplinks = {"u1": {"interface": "wan1", "enabled": False}, "u2": {"interface": "wan2"}}
    assert table(daemon_with(GROUPS, uplinks=uplinks)).maps["via_4"].elements == {}


def test_an_uplink_takes_only_the_families_that_it_has() -> None:
    uplinks = {"u1": {"interface": "wan1", "families": ["ipv4"]}, "u2": {"interface": "wan2"}}
    nft_table = table(daemon_with(GROUPS, uplinks=uplinks))
    assert nft_table.maps["via_4"].elements == {0x100: "goto to_u1"}
    assert nft_table.maps["via_6"].elements == {}


def test_with_no_healthy_uplink_left_programs_may_try() -> None:
    daemon = daemon_with(GROUPS)
    assert daemon.state.decision.selection is not None
    daemon.carrier(2, carrier=False)
    assert table(daemon).maps["via_4"].elements == {0x100: "goto to_u1"}


def test_a_group_that_was_made_anew_refills_the_chain() -> None:
    daemon = daemon_with(GROUPS)
    before = state_of(table(daemon))
    daemon.feed(LookupsChanged(Lookups(cgroups={**TOP, "polywan/u1": replace(GROUPS["polywan/u1"], inode=99)})))
    assert "flush chain inet polywan via\n" in change_text(table(daemon), before)


def test_the_groups_of_all_uplinks_and_the_one_above_are_looked_up() -> None:
    assert wanted(config(2)).cgroups == ("polywan", "polywan/u1", "polywan/u2")


def test_rules_that_the_kernel_lacks_are_not_in_force() -> None:
    nft_table = table(daemon_with(GROUPS))
    assert in_force(nft_table, state_of(nft_table))
    assert not in_force(nft_table, state_of(table(daemon_with(TOP))))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that stands for /sys/fs/cgroup."""
    monkeypatch.setattr(groups, "_HOME", PurePosixPath(tmp_path))
    monkeypatch.setattr(verb, "CGROUP_HOME", tmp_path)
    return tmp_path


def mounted(home: Path, *mounts: tuple[str, str, str]) -> Path:
    """Write a mountinfo; mounts are (root, place below home, type)."""
    lines = []
    for number, (top, place, kind) in enumerate(mounts):
        (home / place).mkdir(exist_ok=True)
        (home / place / "cgroup.procs").touch()
        lines.append(f"{number} 1 0:38 {top} {home / place} rw,relatime shared:9 - {kind} none rw\n")
    file = home / "mountinfo"
    file.write_text("".join(lines))
    return file


def test_version_2_alone_is_mounted_at_the_home_itself(home: Path) -> None:
    found = groups.hierarchy(mounted(home, ("/", "", "cgroup2")))
    assert found == groups.Hierarchy(root=home, prefix=PurePosixPath(), depth=0)


def test_on_a_hybrid_system_paths_begin_with_the_mount_point(home: Path) -> None:
    within = groups.hierarchy(mounted(home, ("/", "memory", "cgroup"), ("/", "unified", "cgroup2")))
    (home / "unified/a.slice").mkdir()
    found = groups.find("/a.slice/", within)
    assert found is not None
    assert (found.path, found.level, found.inode) == ("unified/a.slice", 1, (home / "unified/a.slice").stat().st_ino)


def test_levels_above_what_is_mounted_are_counted(home: Path) -> None:
    within = groups.hierarchy(mounted(home, ("/", "", "cgroup2"), ("/docker/abc", "", "cgroup2")))
    (home / "a/b").mkdir(parents=True)
    found = groups.find("a//./b", within)
    assert found is not None
    assert found.level == 4


def test_a_hierarchy_elsewhere_does_not_count(home: Path) -> None:
    file = home / "mountinfo"
    file.write_text("1 1 0:38 / /mnt rw - cgroup2 none rw\n2 1 0:39 / /sys rw - sysfs none rw\n")
    with pytest.raises(MissingFeature, match="not mounted below"):
        groups.hierarchy(file)


@pytest.mark.parametrize(
    "path", ["", "/", ".", "absent", "cgroup.procs", "../etc", "a/../a", 'a" drop', "a\nb", "a\0b", "x" * 5000]
)
def test_what_is_no_group_or_cannot_be_written_in_a_rule_is_not_found(home: Path, path: str) -> None:
    within = groups.hierarchy(mounted(home, ("/", "", "cgroup2")))
    (home / "a").mkdir()
    assert groups.find(path, within) is None


def test_only_empty_groups_of_ours_are_removed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "hierarchy", lambda: groups.Hierarchy(root=home, prefix=PurePosixPath(), depth=0))
    for path in ("polywan/u1", "polywan/u2/inner", "other"):
        (home / path).mkdir(parents=True)
    groups.remove()
    assert sorted(p.relative_to(home).as_posix() for p in home.rglob("*")) == [
        "other",
        "polywan",
        "polywan/u2",
        "polywan/u2/inner",
    ]


def test_removing_is_silent_where_there_are_no_groups(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> groups.Hierarchy:
        raise MissingFeature("none")

    monkeypatch.setattr(groups, "hierarchy", absent)
    groups.remove()


def answer_of(home: Path, name: str, cgroups: dict[str, ControlGroup], *, refuse: bool = False) -> ViaGroup:
    """What the daemon answers to `exec --via name`, having found these groups."""

    async def play() -> ViaGroup:
        async with running(home) as (daemon, kernel):
            if refuse:
                kernel.fail_next(NftBatch, errno.ENOENT, 9)
            return await look(daemon, lambda: daemon.settle(LookupsChanged(Lookups(cgroups=cgroups))), name)

    return asyncio.run(play())


@pytest.fixture
def capable(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same place, with a kernel that can match groups."""
    monkeypatch.setattr(groups, "require", lambda: None)
    monkeypatch.setattr(groups, "hierarchy", lambda: groups.Hierarchy(root=home, prefix=PurePosixPath(), depth=0))
    return home


def test_the_daemon_names_the_place_of_a_group_that_is_not_there_yet(capable: Path) -> None:
    assert answer_of(capable, "u1", {}) == ViaGroup(
        directory=str(capable / "polywan/u1"),
        uplink="u1",
        state="up",
        reason="no outage since the daemon started",
        families=("ipv4", "ipv6"),
        group=None,
        in_force=False,
    )


def test_the_daemon_says_when_the_group_is_asked_for(capable: Path) -> None:
    answer = answer_of(capable, "u1", GROUPS)
    assert (answer.group, answer.in_force) == (51, True)


def test_a_rule_that_the_kernel_refuses_is_not_in_force(capable: Path) -> None:
    assert answer_of(capable, "u1", GROUPS, refuse=True).in_force is False


def test_the_daemon_knows_its_uplinks(capable: Path) -> None:
    with pytest.raises(ControlError, match='there is no uplink "u3"; known here: u1, u2') as caught:
        answer_of(capable, "u3", {})
    assert caught.value.status == 404


class Answers:
    """A client whose daemon answers so, one after the other."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self._answers = list(answers)

    def ask(self, call: object, asked: OfUplink) -> ViaGroup:
        assert call is calls.EXEC_VIA
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        well = {"uplink": asked.name, "state": "up", "reason": "", "families": ["ipv4"], "in_force": True}
        return decode(ViaGroup, well | answer)


def bind(*answers: dict[str, Any] | Exception) -> None:
    verb.bind(cast("Client", Answers(*answers)), "u1")


def test_exec_enters_the_group_that_the_daemon_has_seen(home: Path) -> None:
    group = home / "polywan/u1"
    group.mkdir(parents=True)
    bind({"directory": str(group), "group": group.stat().st_ino})
    assert (group / "cgroup.procs").read_text() == "0"


def test_exec_makes_a_group_that_is_not_there_and_asks_again(home: Path) -> None:
    group = home / "polywan/u1"
    with pytest.raises(PolywanError, match="does not see the control group"):
        bind({"directory": str(group), "group": None}, {"directory": str(group), "group": 1})
    assert group.is_dir()


def test_exec_does_not_run_a_program_whose_rule_is_not_in_force(home: Path) -> None:
    group = home / "polywan/u1"
    group.mkdir(parents=True)
    with pytest.raises(PolywanError, match="not in force"):
        bind({"directory": str(group), "group": group.stat().st_ino, "in_force": False})
    assert not (group / "cgroup.procs").exists()


@pytest.mark.parametrize("place", ["/etc/polywan/u1", "{home}/../polywan/u1", "{home}/polywan/u2", "polywan/u1"])
def test_exec_writes_nowhere_but_to_the_uplinks_group(home: Path, place: str) -> None:
    with pytest.raises(PolywanError, match="unexpected control group"):
        bind({"directory": place.format(home=home), "group": None})
    assert list(home.rglob("*")) == []


def test_exec_warns_when_the_uplink_is_down(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = home / "polywan/u1"
    group.mkdir(parents=True)
    seen = {"directory": str(group), "group": group.stat().st_ino, "state": "down", "reason": "no carrier"}
    bind({**seen, "families": []})
    assert capsys.readouterr().err == (
        "warning: u1 is down: no carrier; its new connections are refused until it is up\n"
    )


def test_who_may_not_ask_is_told_what_is_needed(home: Path) -> None:
    with pytest.raises(NotPermitted, match=r"only root.*needs root: sudo polywan exec"):
        bind(ControlError("only root and the daemon's own user may change things", 403))


def test_a_machine_without_groups_is_told_so(home: Path) -> None:
    with pytest.raises(MissingFeature, match="not mounted"):
        bind(ControlError("control groups version 2 are not mounted", 501))


def replaced(*argv: str) -> subprocess.CompletedProcess[str]:
    script = "import sys; from polywan.cli.exec import replace_by; replace_by(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, check=False)


def test_the_program_does_not_ignore_the_signals_that_python_ignores() -> None:
    ignored = int(replaced("grep", "SigIgn", "/proc/self/status").stdout.split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


@pytest.mark.parametrize(
    ("program", "code"),
    [("no-such-program", 127), ("/no/such/program", 127), ("", 127), ("/etc", 126), ("/etc/passwd", 126)],
)
def test_a_program_that_cannot_be_started_ends_as_with_env(program: str, code: int) -> None:
    done = replaced(program)
    assert done.returncode == code
    assert done.stderr.startswith(f"polywan exec: {program}: ")
    assert subprocess.run(["env", "--", program], capture_output=True, check=False).returncode == code


def test_exec_starts_fast() -> None:
    script = "import sys, polywan.cli.exec; print('pydantic' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
