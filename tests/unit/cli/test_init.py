"""`polywan init`: what it shows, asks and writes, and what it never touches."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from polywan.cli import VERBS, exit_code, group
from polywan.config import ConfigError, load
from polywan.core.errors import NotPermitted
from polywan.core.plan.plan import Plan, SetSysctl
from polywan.core.routing.sysctls import Sysctl
from polywan.daemon import detecting, offline
from polywan.daemon.detecting import Found
from support.detected import Machine, gateway

NOBODY = 65534


class Init:
    """The verb on a machine that a test makes up, with a terminal unless it says otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.path = folder / "etc" / "polywan.toml"
        self.machine = gateway()
        self.forwards = False
        self._patch = monkeypatch
        monkeypatch.setattr(detecting, "look", self._look)
        monkeypatch.setattr(offline, "plan", self._plan)

    def _look(self) -> Found:
        return Found(self.machine.survey(), self.machine.observed, self.forwards)

    @staticmethod
    def _plan(*_: object) -> object:
        raise NotPermitted("run it as root")

    def __call__(self, *words: str, answers: str | None = None) -> Result:
        class Terminal(io.BytesIO):
            def isatty(self) -> bool:
                return answers is not None

        stdin = Terminal((answers or "").encode())
        return CliRunner().invoke(group, ["init", "--config", str(self.path), *words], input=stdin)

    @property
    def written(self) -> str:
        return self.path.read_text("utf-8")


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Init:
    return Init(monkeypatch, tmp_path)


def test_without_a_question_it_writes_a_file_that_is_good(init: Init) -> None:
    done = init("--yes")
    assert done.exit_code == 0, done.output
    config = load(init.path)
    assert [uplink.interface for uplink in config.uplinks.values()] == ["eth1", "eth2"]
    assert config.global_.forwarding is True
    assert f"{init.path} written" in done.stderr


def test_everybody_may_read_the_file_and_its_directory_whatever_the_umask(init: Init) -> None:
    before = os.umask(0o077)
    try:
        init("--yes")
    finally:
        os.umask(before)
    assert init.path.stat().st_mode & 0o777 == 0o644
    assert init.path.parent.stat().st_mode & 0o777 == 0o755


def test_every_link_has_its_reason(init: Init) -> None:
    lines = init("--yes").stdout.splitlines()
    assert lines[:4] == [
        "eth1  uplink     IPv4 default route by 100.64.1.1",
        "eth2  uplink     IPv4 default route by 100.64.2.1",
        "lan0  no uplink  a LAN: 192.168.15.0/24, and no router",
        "no uplinks either: lo",
    ]


def test_links_with_the_same_to_say_of_them_share_a_line(init: Init) -> None:
    for number in range(3, 9):
        init.machine.link(f"eth{number}", carrier=False)
    said = init("--yes").stdout
    assert "eth3, eth4, eth5 and 3 more  no uplink  has no carrier: is a cable plugged in?\n" in said


def test_a_terminal_is_asked_whether_there_is_a_lan_and_whether_to_write(init: Init) -> None:
    done = init(answers="n\ny\n")
    assert "Does this machine route for the LAN behind it, lan0 (192.168.15.0/24)? [Y/n]" in done.stderr
    assert f"Write {init.path}? [Y/n]" in done.stderr
    assert load(init.path).global_.forwarding == "auto"


def test_a_machine_that_forwards_already_is_not_asked_whether_it_does(init: Init) -> None:
    init.forwards = True
    done = init(answers="\n")
    assert "Does this machine route" not in done.stderr
    assert load(init.path).global_.forwarding is True


def test_what_only_its_owner_knows_is_asked(init: Init) -> None:
    init.machine.ppp("ppp0", "10.8.0.2/32")
    init.machine.default("ppp0", None)
    done = init(answers="y\n\n\n")
    assert "Is ppp0 an uplink? [y/N]" in done.stderr
    assert "ppp0" in load(init.path).uplinks


def test_without_questions_what_is_unlikely_is_left_out(init: Init) -> None:
    init.machine.ppp("ppp0", "10.8.0.2/32")
    init.machine.default("ppp0", None)
    init("--yes")
    assert "ppp0" not in load(init.path).uplinks


def test_no_is_an_answer_that_writes_nothing(init: Init) -> None:
    done = init(answers="\nn\n")
    assert (done.exit_code, init.path.exists()) == (0, False)
    assert "nothing was written" in done.stderr


def test_an_interruption_leaves_nothing(init: Init) -> None:
    done = init(answers="")
    assert done.exit_code == 1
    assert not init.path.parent.exists()


def test_without_a_terminal_it_asks_for_a_decision_instead_of_guessing(init: Init) -> None:
    done = init()
    assert (done.exit_code, init.path.exists()) == (2, False)
    assert "use --yes to write, or --print to look" in done.stderr


def test_print_gives_the_file_alone_on_stdout_and_writes_nothing(init: Init) -> None:
    done = init("--print")
    assert done.stdout.startswith("# Written by")
    assert "eth1  uplink" in done.stderr
    assert not init.path.exists()
    assert init("--print", "--yes").stdout == done.stdout
    assert not init.path.exists()


def test_facts_are_given_as_json_and_written_on_request(init: Init) -> None:
    facts = json.loads(init("--json").stdout)
    assert facts["written"] is False
    assert not init.path.exists()
    assert [seen["verdict"] for seen in facts["seen"]] == ["uplink", "uplink", "not"]
    facts = json.loads(init("--json", "--yes").stdout)
    assert (facts["written"], facts["text"]) == (True, init.written)


def test_where_nothing_is_found_it_says_what_to_do(init: Init) -> None:
    init.machine = Machine()
    init.machine.link("eth1", carrier=False)
    done = init("--yes")
    assert (done.exit_code, init.path.exists()) == (1, False)
    assert "no uplink found" in done.stderr
    assert "has no carrier" in done.stdout
    done = init("--json", "--yes")
    assert (done.exit_code, json.loads(done.stdout)["uplinks"]) == (1, [])


def test_a_single_uplink_is_written_and_said_to_be_single(init: Init) -> None:
    init.machine = Machine()
    init.machine.link("eth1", "100.64.1.2/24")
    init.machine.default("eth1", "100.64.1.1")
    done = init("--yes")
    assert len(load(init.path).uplinks) == 1
    assert "balancing needs a second one" in done.stderr


class TestFileThatIsThere:
    def put(self, init: Init, text: str) -> None:
        init.path.parent.mkdir()
        init.path.write_text(text)

    @pytest.mark.parametrize("words", [(), ("--yes",), ("--json",), ("--json", "--yes")])
    def test_it_stays_byte_for_byte(self, init: Init, words: tuple[str, ...]) -> None:
        text = '# mine\n[uplinks.fibre]\ninterface="eth1"\n'
        self.put(init, text)
        before = init.path.stat()
        assert init(*words).exit_code == 9
        after = init.path.stat()
        assert init.written == text
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        assert list(init.path.parent.iterdir()) == [init.path]

    def test_the_difference_is_shown_with_what_it_means(self, init: Init) -> None:
        self.put(
            init, '[uplinks.fibre]\ninterface = "eth1"\nweight = 3\n[[rules]]\nto = "10.0.0.0/8"\naction = "bypass"\n'
        )
        said = init("--yes").stdout
        assert '+interface = "eth2"\n' in said
        assert "-weight = 3\n" in said
        assert "not in your file: eth2\n" in said
        assert "your file also says: weight of 1 uplink and 1 rule\n" in said

    def test_one_that_says_the_same_in_other_words_does_not_differ(self, init: Init) -> None:
        self.put(
            init,
            '[uplinks]\nfibre = {interface = "eth1"} # x\ndsl = {interface = "eth2"}\n[global]\nforwarding=true\n',
        )
        done = init()
        assert done.exit_code == 0
        assert "says the same" in done.stdout

    def test_what_init_wrote_is_the_same_the_next_time(self, init: Init) -> None:
        init("--yes")
        assert init("--yes").exit_code == 0

    def test_one_with_errors_is_reported_like_anywhere(self, init: Init) -> None:
        self.put(init, "[uplinks.fibre]\n")
        done = init("--yes")
        assert isinstance(done.exception, ConfigError)
        assert exit_code(done.exception) == 3

    def test_a_link_that_leads_nowhere_counts_as_one(self, init: Init) -> None:
        init.path.parent.mkdir()
        init.path.symlink_to("elsewhere")
        assert isinstance(init("--yes").exception, ConfigError)
        assert init.path.is_symlink()

    def test_where_no_uplink_is_found_all_of_the_file_is_the_difference(self, init: Init) -> None:
        init.machine = Machine()
        self.put(init, '[uplinks.fibre]\ninterface = "eth1"\n')
        done = init("--yes")
        assert done.exit_code == 9
        assert "uplink fibre, whose device eth1 is not here at present" in done.stdout


def test_files_beside_it_count_before_it_is_written(init: Init) -> None:
    beside = init.path.parent / "conf.d"
    beside.mkdir(parents=True)
    (beside / "more.toml").write_text("[uplinks.eth1]\nweigth = 3\n")
    done = init("--yes")
    assert isinstance(done.exception, ConfigError)
    assert not init.path.exists()


def test_who_may_not_write_is_told_how_to(init: Init) -> None:
    with TemporaryDirectory() as folder:
        # Everybody may look there, and pytest's own folders are closed to others.
        os.chmod(folder, 0o555)
        init.path = Path(folder) / "polywan.toml"
        before = os.geteuid()
        os.seteuid(NOBODY if before == 0 else before)  # root may write everywhere
        try:
            done = init("--yes")
        finally:
            os.seteuid(before)
    assert isinstance(done.exception, NotPermitted)
    assert exit_code(done.exception) == 5
    assert "use sudo" in str(done.exception)


def test_a_file_that_appears_meanwhile_is_left_alone(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(text: str, **_: Any) -> bool:
        init.path.parent.mkdir(exist_ok=True)
        init.path.write_text("theirs")
        return True

    monkeypatch.setattr(click, "confirm", late)
    done = init(answers="")
    assert "appeared in the meantime" in str(done.exception)
    assert init.written == "theirs"
    assert list(init.path.parent.iterdir()) == [init.path]


def test_where_the_plan_cannot_be_made_the_reason_is_said(init: Init) -> None:
    assert "what would change in the kernel is not shown: run it as root" in init("--yes").stderr


def test_a_long_plan_is_cut(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    change = SetSysctl(Sysctl("net/ipv4/ip_forward", "1"), "0")
    monkeypatch.setattr(offline, "plan", lambda *_: (Plan(ops=(change,) * 60), ("mind this",)))
    done = init("--yes")
    assert "the daemon would make 60 changes in the kernel:" in done.stdout
    assert "… and 10 more: polywan plan shows all" in done.stdout
    assert "warning: mind this" in done.stderr


def test_the_next_step_is_the_daemon(init: Init) -> None:
    assert (
        init("--yes").stderr.splitlines()[-1]
        == "next: systemctl enable --now polywan, or polywan run in the foreground"
    )


def test_doctor_is_offered_and_its_findings_do_not_undo_the_file(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Path] = []

    @click.command()
    @click.option("--config", "config_path", type=Path)
    @click.pass_context
    def doctor(ctx: click.Context, config_path: Path) -> None:
        called.append(config_path)
        ctx.exit(1)

    real = type(group).get_command
    monkeypatch.setattr(
        type(group), "get_command", lambda self, ctx, name: doctor if name == "doctor" else real(self, ctx, name)
    )
    done = init(answers="\n\n\n")
    assert (done.exit_code, called) == (0, [init.path])
    init.path.unlink()
    assert "next: polywan doctor" in init("--yes").stderr
    assert len(called) == 1


def test_it_is_listed_after_the_lab() -> None:
    assert list(VERBS)[:2] == ["lab", "init"]
