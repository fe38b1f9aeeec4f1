"""What the runbook is for is made to happen; its commands are typed then, print what it says, and mend it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from polywan.api import calls
from polywan.api.requests import OfTrial, ToTry
from polywan.core.errors import ControlError
from polywan.core.net import Family
from polywan.core.status.log_names import LOG_EVENTS
from polywan.core.trial.record import RECORD_SUFFIX
from polywan.daemon.api.admission import MOST_PEERS
from polywan.daemon.history import HISTORY_FILE
from polywan.daemon.rundir import LOCK_FILE
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.recipe import bring_up
from polywan.lab.scenario import configuration
from support.netns import with_servers
from support.runbook import SHELL, Section, commands, missing, runbook, type_in
from support.web import logged, page

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

SECTIONS: Final = {section.title: section for section in runbook()}

NAMES: Final = {"isp1": "fibre", "isp2": "dsl", "isp3": "lte"}
RESOLVER: Final = "1.1.1.1"
SILENT: Final = "198.51.100.10"
"""A health target that can be taken away."""

ANSWERS: Final = {
    r"polywan uplink test\b": {0, 6, 7},
    r"polywan doctor\b": {0, 6},
    r"polywan check\b": {0, 3},
    r"polywan init\b": {0, 9},
    r"ping\b": {0, 1},
    # The kernel's log is not for everybody.
    r"dmesg\b": {0, 1},
    r"timeout\b": {124},
}
"""Exit codes that are answers, not failures; of all others only 0 is."""


def file(lab: Lab, weights: Sequence[int] = (3, 1, 1)) -> str:
    """Return a configuration with the runbook's names, under which an uplink soon is back."""
    text = configuration(lab.topology, weights)
    for name, new in NAMES.items():
        text = text.replace(name, new)
    return text.replace('hold_down = "3s"', 'hold_down = "1s"\nrise = 2')


def explained() -> list[re.Pattern[str]]:
    """Return the warnings of `status` that the runbook knows."""
    column = re.findall(r"^\| (`.*?) \| \[", SECTIONS["Warnings of status"].text, re.MULTILINE)
    texts = [text for cell in column for text in re.findall(r"`(.*?)`", cell)]
    return [re.compile(re.escape(text).replace("…", ".*")) for text in texts]


class Night:
    """A box on which something happens; `type` is what the administrator does."""

    def __init__(self, lab: Lab, start: Callable[..., DaemonProcess], wait: WaitFor, sections: list[Section]) -> None:
        self.lab, self._start, self.wait = lab, start, wait
        self._examples = [example for section in sections for example in section.examples()]
        self.typed: list[str] = []
        self._daemon: DaemonProcess | None = None

    @property
    def daemon(self) -> DaemonProcess:
        if self._daemon is None:
            self.begin()
        assert self._daemon is not None
        return self._daemon

    def begin(self, text: str | None = None) -> DaemonProcess:
        """Start the daemon, which may complain: that is what the runbook is about."""
        self._daemon = self._start(self.lab, text or file(self.lab), may_complain=True)
        return self._daemon

    def sees(self, event: str, timeout: float = 15.0, since: int = 0) -> str:
        """Wait for an event in the log, at one of its levels."""
        levels = "|".join(level.upper() for level in LOG_EVENTS[event])
        wanted = re.compile(rf" (?:{levels}) {re.escape(event)}: ")
        line = self.daemon.wait_log(lambda text: wanted.search(text) is not None, timeout, since)
        assert line is not None, f"no {event} in:\n" + "\n".join(entry.text for entry in self.daemon.log)
        return line.text

    def restart(self) -> None:
        """Start the daemon again, whether or not it runs still."""
        self.daemon.stop()
        self.daemon.start()

    def type(self, count: int = 99) -> None:
        """Type the next blocks of the sections; each has to succeed, and to print its example.

        Whatever `status` warns of meanwhile has to be in the runbook, too.
        """
        with suppress(ControlError):
            for warning in self.daemon.status().warnings:
                assert any(pattern.match(warning) for pattern in explained()), warning
        for block, example in self._examples[len(self.typed) :][:count]:
            printed = []
            for command in commands(block):
                done = type_in(self.lab.router, self.daemon, command)
                printed.append(done.stdout + done.stderr)
                codes = next((codes for words, codes in ANSWERS.items() if re.match(words, command)), {0})
                assert done.returncode in codes, f"{command}{printed[-1]}exit code {done.returncode}"
            self.typed.append(block)
            assert missing(example, "".join(printed)) == [], "".join(printed)

    def is_well(self, *, timeout: float = 20.0) -> None:
        """Wait until every uplink serves, and nothing is to be repaired."""
        self.wait(lambda: all(u.state == "up" for u in self.daemon.status().uplinks), timeout, "every uplink is up")
        assert type_in(self.lab.router, self.daemon, "polywan plan").stdout == "nothing to change\n"

    def has_no_warning(self, of: str) -> None:
        """Wait until `status` does not warn of something any more."""
        self.wait(lambda: not any(of in text for text in self.daemon.status().warnings), 15.0, f"no warning of {of}")


SITUATIONS: dict[tuple[str, ...], Callable[[Night], None]] = {}
"""What is made to happen, by the headings of the sections that are for it."""


def happens(*titles: str) -> Callable[[Callable[[Night], None]], Callable[[Night], None]]:
    def keep(situation: Callable[[Night], None]) -> Callable[[Night], None]:
        SITUATIONS[titles] = situation
        return situation

    return keep


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """Give a directory a disk of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> None:
    """Fill a disk by what the runbook tells to remove."""
    with suppress(OSError), (directory / "events.db.aside").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"\0" * 1024)


@happens("The Internet is gone")
def silence(night: Night) -> None:
    night.begin()
    night.lab.blackhole(1)
    night.sees("uplink.down")
    night.type()
    night.lab.unblackhole(1)
    night.is_well()


@happens("Which uplink is my connection on", "Try a line without touching the others", "Take one uplink out")
def nothing(night: Night) -> None:
    night.begin(file(night.lab).replace('interface = "wan3"', 'interface = "wan3"\nmetered = true'))
    night.is_well()
    night.type()
    night.is_well()


@happens("Send one host by one uplink")
def one_host(night: Night) -> None:
    night.begin()
    night.type()
    assert night.daemon.reload().changes == ()


@happens("Take everything out")
def everything_out(night: Night) -> None:
    before = night.lab.router.run(["ip", "rule"]).stdout
    night.begin()
    night.type()
    assert night.lab.router.run(["ip", "rule"]).stdout == before
    assert "polywan" not in night.lab.router.run(["nft", "list", "tables"]).stdout
    night.restart()
    night.is_well()


@happens("Alerts", "States of an uplink")
def one_is_down(night: Night) -> None:
    night.begin()
    night.lab.cut(1)
    night.sees("uplink.down")
    night.type()


@happens("The daemon does not answer")
def no_answer(night: Night) -> None:
    daemon = night.begin()
    night.type()
    daemon.kill()
    assert type_in(night.lab.router, daemon, "polywan status --check").returncode == 4
    daemon.start()
    assert daemon.status().generation == 0


@happens("`uplink.down` (warning)")
def pulled_cable(night: Night) -> None:
    night.begin()
    night.lab.cut(1)
    night.sees("uplink.down")
    night.type()
    night.lab.restore(1)
    night.sees("uplink.up", since=len(night.daemon.log) - 1)
    night.is_well()


@happens("`uplink.missing` (warning)")
def unplugged(night: Night) -> None:
    night.begin()
    night.lab.router.ip(["link set wan1 down", "link set wan1 name gone0"])
    night.sees("uplink.missing")
    night.type()
    night.daemon.config.write_text(night.daemon.config.read_text().replace('"wan1"', '"gone0"'))
    night.lab.router.ip(line.replace("wan1", "gone0") for line in bring_up(night.lab.topology.uplink(1)))
    night.daemon.reload()
    night.is_well()


@happens("`uplink.degraded` (warning, info)")
def one_family(night: Night) -> None:
    night.begin()
    hole = f"element inet lab holes6 {{ {night.lab.topology.uplink(2).addresses[Family.V6].allowed} }}\n"
    night.lab.provider(2).nft(f"add {hole}")
    night.sees("uplink.degraded")
    night.type()
    night.lab.provider(2).nft(f"delete {hole}")
    night.is_well()


@happens("`uplink.flapping` (warning)")
def bad_plug(night: Night) -> None:
    night.begin()
    for _ in range(3):
        night.lab.cut(1)
        night.wait(lambda: "no carrier" in night.daemon.uplink(1).reason)
        night.lab.restore(1)
        night.wait(lambda: "no carrier" not in night.daemon.uplink(1).reason)
    night.sees("uplink.flapping")
    night.type()
    night.is_well()


@happens("`uplinks.all_down` (warning)", "`policy.forced` (warning)")
def all_silent(night: Night) -> None:
    night.begin()
    for number in (1, 2, 3):
        night.lab.blackhole(number)
    night.sees("uplinks.all_down")
    night.sees("policy.forced")
    night.type()
    for number in (1, 2, 3):
        night.lab.unblackhole(number)
    night.sees("policy.served")
    night.is_well()


@happens("`target.bad` (warning)")
def dead_target(night: Night) -> None:
    night.begin()
    night.wait(lambda: all(u.rtt_ms is not None for u in night.daemon.status().uplinks))
    night.lab.server.ip([f"address del {SILENT}/32 dev lo", f"route add blackhole {SILENT}/32"])
    night.sees("target.bad", 30.0)
    night.type()
    night.lab.server.ip([f"route del blackhole {SILENT}/32", f"address add {SILENT}/32 dev lo"])
    night.sees("target.cleared", 60.0)


@happens("`gateway.next` (warning)")
def dead_router(night: Night) -> None:
    night.lab.router.ip(["route add default via 100.64.1.9 dev wan1 metric 50"])
    night.begin()
    night.sees("gateway.next", 30.0)
    night.type()
    night.is_well()


@happens("`gateway.withdrawn` (warning)")
def withdrawn(night: Night) -> None:
    night.lab.router.ip(["route del default via 2001:db8:64:1::1 dev wan1 metric 1025"])
    advertised = "via 2001:db8:64:1::1 dev wan1 proto ra metric 1025"
    night.lab.router.run(["ip", "-6", "route", "add", "default", *advertised.split()])
    night.begin()
    night.lab.router.run(["ip", "-6", "route", "del", "default", *advertised.split()])
    night.sees("gateway.withdrawn")
    night.type()
    night.lab.router.run(["ip", "-6", "route", "add", "default", *advertised.split()])
    night.is_well()


@happens("`caution` (warning)")
def default_elsewhere(night: Night) -> None:
    night.lab.router.ip(["route add default via 192.168.15.10 dev lan0 metric 5"])
    night.begin()
    night.sees("caution")
    night.type()
    night.has_no_warning("nothing is balanced")


@happens("`config.warning` (warning)")
def useless_rule(night: Night) -> None:
    rule = '\n[[rules]]\nfrom = "192.168.15.0/24"\nuplink = "dsl"\n'
    night.begin(file(night.lab) + rule + rule.replace(".0/24", ".10"))
    night.sees("config.warning")
    night.type()
    night.daemon.config.write_text(file(night.lab) + rule)
    night.daemon.reload()
    assert night.daemon.status().warnings == ()


@happens("`reload.refused` (error)")
def bad_file(night: Night) -> None:
    good = file(night.lab)
    daemon = night.begin(good)
    daemon.config.write_text(f"{good}wieght = 3\n")
    assert type_in(night.lab.router, daemon, "polywan reload").returncode == 3
    night.sees("reload.refused")
    night.type(1)
    daemon.config.write_text(good)
    night.type()
    night.sees("reload.done")


@happens("`trial.rolled_back` (warning)")
def rolled_back(night: Night) -> None:
    daemon = night.begin()
    text = file(night.lab, (1, 1, 1))
    until = datetime.now(UTC) + timedelta(seconds=60)
    files = {daemon.config.name: text}
    ask = daemon.client.ask
    ask(calls.TRY, ToTry(id="0badcafe", by="alice", until=until.isoformat(), seconds=60.0, files=files))
    night.sees("trial.begun")
    ask(calls.ROLL_BACK, OfTrial(id="0badcafe", by="alice", reason="ended by alice"))
    night.sees("trial.rolled_back")
    night.type()
    night.is_well()


@happens("`trial.left` (warning), `trial.dropped` (warning)")
def left_in_a_trial(night: Night) -> None:
    daemon = night.begin()
    daemon.config.with_name(daemon.config.name + RECORD_SUFFIX).touch()
    night.restart()
    night.sees("trial.left")
    night.type()
    night.is_well()


@happens("`lookup.failed` (warning)")
def lost_list(night: Night) -> None:
    daemon = night.begin()
    daemon.config.write_text(f'{file(night.lab)}\n[[rules]]\nlist = "{daemon.runtime}/vpn.txt"\nuplink = "dsl"\n')
    daemon.reload()
    night.sees("lookup.failed")
    night.type()
    night.sees("lookup.recovered")
    assert daemon.status().warnings == ()


@happens("`drift.repaired` (warning)")
def foreign_hand(night: Night) -> None:
    night.begin()
    night.lab.router.ip(["rule del pref 6271"])
    night.sees("drift.repaired")
    night.type()


@happens("`apply.refused` (error)")
def in_the_way(night: Night) -> None:
    night.begin()
    # Its elements are of another kind now.
    night.lab.router.nft(
        "flush chain inet polywan postrouting\ndelete map inet polywan guards\n"
        "add map inet polywan guards { type ipv4_addr : verdict; }\n"
    )
    night.sees("apply.refused")
    night.type()
    night.restart()
    night.is_well()


@happens("`events.lost` (warning)")
def flood(night: Night) -> None:
    process = night.begin().process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    many = [f"route add 198.18.{n // 250}.{n % 250}/32 dev lan0" for n in range(5000)]
    night.lab.router.ip(many)
    night.lab.router.ip([line.replace("add", "del") for line in many])
    os.kill(process.pid, signal.SIGCONT)
    night.sees("events.lost")
    night.type()


@happens("`clock.gap` (warning)")
def stopped(night: Night) -> None:
    process = night.begin().process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    # The gap itself: there is nothing to wait for while a process is stopped.
    asyncio.run(asyncio.sleep(7.0))
    os.kill(process.pid, signal.SIGCONT)
    night.sees("clock.gap")
    night.type()
    assert all(u.state == "up" for u in night.daemon.status().uplinks)


@happens("`state.unwritable` (error)")
@happens("`journal.unwritable` (error)")
@happens("`measurements.unwritable` (error)")
def full_disk(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    with small_disk(daemon.state):
        daemon.start()
        night.wait((daemon.state / "events.db").exists, 10.0)
        fill(daemon.state)
        type_in(night.lab.router, daemon, "polywan uplink disable lte")
        night.lab.cut(1)
        night.sees("state.unwritable")
        night.sees("journal.unwritable")
        night.sees("measurements.unwritable", 15.0)
        night.type()
        night.sees("state.written", 25.0)
        night.sees("journal.written", 25.0)
        night.sees("measurements.written", 25.0)
        night.has_no_warning("restart will lose")
        night.has_no_warning("journal is not on disk")
        night.has_no_warning("measurements are not on disk")
        daemon.stop()


def with_quota(night: Night) -> DaemonProcess:
    return night.begin(file(night.lab) + '\n[uplinks.lte.quota]\nmonthly = "50GB"\n')


@happens("`quota.soft` (warning), `quota.hard` (warning)")
def used_up(night: Night) -> None:
    daemon = with_quota(night)
    for amount, event in (("46.2GB", "quota.soft"), ("50GB", "quota.hard"), ("46.2GB", "quota.soft")):
        since = len(daemon.log)
        assert type_in(night.lab.router, daemon, f"polywan quota lte --reading {amount}").returncode == 0
        night.sees(event, since=since)
    night.type()
    night.sees("quota.within")


@happens("`quota.unwritable` (error)")
def quota_on_a_full_disk(night: Night) -> None:
    daemon = with_quota(night)
    daemon.stop()
    with small_disk(daemon.state):
        daemon.start()
        night.wait((daemon.state / "quota.json").exists, 10.0)
        fill(daemon.state)
        assert type_in(night.lab.router, daemon, "polywan quota lte --reading 1GB").returncode == 1
        night.sees("quota.unwritable")
        night.type()
        night.sees("quota.written")
        night.has_no_warning("use of quotas is not on disk")
        daemon.stop()


@happens("`quota.aside` (warning), `quota.newer` (warning)")
def damaged_quotas(night: Night) -> None:
    daemon = with_quota(night)
    daemon.stop()
    (daemon.state / "quota.json").write_text('{"version": 99}')
    daemon.start()
    night.sees("quota.newer")
    daemon.stop()
    (daemon.state / "quota.json").write_text("{")
    daemon.start()
    night.sees("quota.aside")
    night.type()


@happens("`state.unreadable` (warning)")
def damaged_memory(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    (daemon.state / "memory.json").write_text("{")
    daemon.start()
    night.sees("state.unreadable")
    night.type()
    night.is_well()


@happens("`down.unrestored` (warning)")
def lost_memory(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    (daemon.state / "memory.json").unlink()
    daemon.start()
    night.sees("state.unreadable")
    assert type_in(night.lab.router, daemon, "polywan down").returncode == 1
    night.sees("down.unrestored")
    night.type()


@happens("`down.failed` (error)")
def stuck_memory(night: Night) -> None:
    daemon = night.begin()
    memory = daemon.state / "memory.json"
    # What something is mounted on cannot be removed.
    subprocess.run(["mount", "--bind", memory, memory], check=True)
    try:
        assert type_in(night.lab.router, daemon, "polywan down").returncode == 1
        night.sees("down.failed")
    finally:
        subprocess.run(["umount", memory], check=True)
    daemon.stop()
    night.type()
    assert "polywan" not in night.lab.router.run(["nft", "list", "tables"]).stdout


@happens("`journal.aside` (warning)")
def damaged_journal(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    (daemon.state / "events.db").write_bytes(b"no journal" * 100)
    daemon.start()
    night.sees("journal.aside")
    night.type()


@happens("`measurements.aside` (warning)")
def damaged_measurements(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    (daemon.state / "measurements.db").write_bytes(b"no measurements" * 100)
    daemon.start()
    night.sees("measurements.aside", 15.0)
    night.type()


def with_hook(night: Night, script: str) -> Path:
    """Have a hook that is called for a loss; it is not executable yet."""
    daemon = night.begin()
    hook = daemon.runtime / "hooks/mail"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o644)
    daemon.config.write_text(f'{file(night.lab)}\n[hooks]\ndown = "{hook}"\nup = "{hook}"\n')
    daemon.reload()
    return hook


@happens("`history.unwritable` (error), `history.newer` (warning)")
def newer_history(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    history = daemon.state / HISTORY_FILE
    history.write_text('{"version": 1000}')
    daemon.start()
    night.sees("history.newer")
    night.type()
    assert history.read_text() == '{"version": 1000}'


@happens("`history.aside` (warning)")
def damaged_history(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    (daemon.state / HISTORY_FILE).write_text("{")
    daemon.start()
    night.sees("history.aside")
    night.type()
    assert not (daemon.state / f"{HISTORY_FILE}.aside").exists()


@happens("`hook.failed` (warning)")
def plain_hook(night: Night) -> None:
    with_hook(night, "exit 0")
    night.lab.cut(1)
    night.sees("hook.failed")
    night.type()
    night.lab.cut(2)
    night.sees("hook.recovered")
    night.has_no_warning("hook down")


@happens("`hook.dropped` (warning)")
def slow_hook(night: Night) -> None:
    hook = with_hook(night, "exec sleep 300")
    hook.chmod(0o755)
    night.lab.cut(1)
    night.sees("uplink.down")
    night.lab.restore(1)
    night.wait(lambda: night.daemon.uplink(1).state == "up", 15.0)
    night.daemon.stop()
    night.sees("hook.dropped")
    hook.write_text("#!/bin/sh\nexit 0\n")
    night.daemon.start()
    night.type()


@happens("`socket.again` (warning), `socket.gone` (error)")
def swept(night: Night) -> None:
    daemon = night.begin()
    lock, sock = daemon.runtime / LOCK_FILE, daemon.runtime / "control.sock"
    assert lock.exists()
    lock.unlink()
    with lock.open("w") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        sock.unlink()
        night.sees("socket.gone")
        assert type_in(night.lab.router, daemon, "polywan status").returncode == 4
    night.sees("socket.again")
    night.type()


@happens("`presence.taken` (warning)")
def name_taken(night: Night) -> None:
    with closing(night.lab.router.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        other.bind("\0polywan")
        night.begin()
        night.sees("presence.taken")
        night.type()
    night.daemon.stop()
    since = len(night.daemon.log)
    night.daemon.start()
    assert not any("presence.taken" in line.text for line in night.daemon.log[since:])


@happens("`control.refused` (warning)")
def too_many(night: Night) -> None:
    daemon = night.begin()
    with ExitStack() as held:
        for _ in range(MOST_PEERS + 1):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(daemon.runtime / "control.sock"))
        night.sees("control.refused")
        night.type()
    night.wait(lambda: type_in(night.lab.router, daemon, "polywan status").returncode == 0)


@happens("`web.waiting` (warning), `web.refused` (warning), `tokens.unreadable` (warning)")
def page_without_daemon(night: Night) -> None:
    daemon = night.begin()
    daemon.stop()
    with page(daemon.runtime, namespace=night.lab.router) as (browser,), logged() as lines:
        assert browser.get("/api/v1/status").status == 503
        assert any("web.waiting: " in line for line in lines)
        daemon.start()
        night.type()
        assert browser.get("/api/v1/status").status == 200
        assert any("web.answered: " in line for line in lines)


@happens("`fastpath.off` (info), `fastpath.on` (info)")
def slow_path(night: Night) -> None:
    night.begin(file(night.lab))
    if not any("fastpath.off" in line.text for line in night.daemon.log):
        # Something has to see every packet.
        counter = "type filter hook forward priority 0; policy accept; meta length 1-65535 counter"
        night.lab.router.nft(f"table inet other {{ chain all {{ {counter}; }}; }}\n")
    night.sees("fastpath.off")
    night.type()


@happens(
    "Probes cannot be sent",
    "`keep.refused` (warning)",
    "`read.failed` (error), `release.failed` (error), `forget.failed` (error), `drain.failed` (error)",
    "`release.partial` (warning)",
    "`passive.unavailable` (warning), `liveness.unavailable` (warning)",
    "`trial.stuck` (error), `trial.unreadable` (warning)",
    "`control.failed` (error)",
    "`log.shortened` (warning)",
    "Lines of libraries",
)
def not_made(night: Night) -> None:
    """Only a kernel that fails or a bug would make it: the commands are typed all the same."""
    night.begin()
    night.type()


@pytest.mark.parametrize("titles", SITUATIONS, ids=", ".join)
def test_what_the_runbook_is_for_happens_and_its_commands_show_and_mend_it(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, titles: tuple[str, ...]
) -> None:
    sections = [SECTIONS[title] for title in titles]
    night = Night(lab, start_daemon, wait_for, sections)
    lab.server.ip([f"address add {RESOLVER}/32 dev lo"])

    async def story() -> None:
        await asyncio.to_thread(SITUATIONS[titles], night)

    with_servers(lab, story)
    assert night.typed == [block for section in sections for block in section.of(SHELL)]


def test_the_commands_of_every_section_are_typed_in_a_situation() -> None:
    played = sorted(title for titles in SITUATIONS for title in titles)
    assert played == sorted(title for title, section in SECTIONS.items() if section.of(SHELL))
