"""What every guest keeps, by user-mode Linux and by QEMU: a command in it is as one here, on another kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.guest import RunGuest

HERE = Path(__file__).parent
OFFERED = [
    "bond", "bridge", "dummy", "ifb", "vrf", "veth", "wireguard", "macvlan", "cake", "fq_codel", "htb", "netem", "prio",
    "sfq", "ingress", "nft ip", "nft ip6", "nft inet", "nft arp", "nft netdev", "flowtable", "tun", "ppp", "pppoe",
]  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What one guest showed of itself."""

    done: subprocess.CompletedProcess[str]
    writable: Path

    def __getitem__(self, word: str) -> str:
        pairs = (line.partition(" ") for line in self.done.stdout.splitlines())
        return next(rest for first, _, rest in pairs if first == word)

    def all(self, word: str) -> set[str]:
        pairs = (line.partition(" ") for line in self.done.stdout.splitlines())
        return {rest for first, _, rest in pairs if first == word}


@pytest.fixture(scope="session")
def seen(guest: RunGuest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One guest for all that can be asked of it at once."""
    writable = tmp_path_factory.mktemp("writable")
    (writable / "given").write_text("by this machine")
    with tempfile.NamedTemporaryFile(dir="/tmp") as temporary:
        words = ["--rw", str(writable), "sh", str(HERE / "inside.sh"), str(writable), temporary.name]
        done = guest(*words, directory=HERE, POLYWAN_WORD="two words", SECRET="a secret")
    return Seen(done, writable)


def test_its_exit_status_is_the_commands(seen: Seen) -> None:
    assert seen.done.returncode == 7, seen.done.stderr


def test_stderr_has_the_commands_after_one_line_about_the_kernel(seen: Seen) -> None:
    first, *rest = seen.done.stderr.splitlines()
    assert first.startswith("polywan: in a guest, ")
    assert rest == ["said on stderr"]
    assert "said on stderr" not in seen.done.stdout


def test_the_command_starts_in_the_same_directory_as_root_without_a_terminal(seen: Seen) -> None:
    assert (seen["directory"], seen["user"], seen["tty"], seen["input"]) == (str(HERE), "0", "no", "0")


def test_it_gets_the_variables_of_polywan_and_no_secret(seen: Seen) -> None:
    assert (seen["variable"], seen["other"]) == ("two words", "none")


def test_what_it_writes_stays_below_a_directory_that_is_named_and_goes_elsewhere(seen: Seen) -> None:
    assert (seen.writable / "kept").read_text() == "kept\n"
    assert seen["etc"] == "writable"
    assert not Path("/etc/polywan-guest").exists()


def test_it_reads_what_is_there_and_has_a_tmp_of_its_own(seen: Seen) -> None:
    assert (seen["descriptors"], seen["temporary"]) == ("by this machine", "its own")


def test_its_loopback_device_is_up(seen: Seen) -> None:
    assert int(seen["lo"], 16) & 1


def test_its_kernel_has_what_tests_need(seen: Seen) -> None:
    assert set(OFFERED) - seen.all("offers") == set()


def test_a_command_that_does_not_end_is_ended(guest: RunGuest) -> None:
    done = guest("--seconds", "0.5", "sleep", "600")
    assert done.returncode == 124
    assert "polywan: no end within 0.5 s; its console:\n" in done.stderr


def test_a_guest_that_dies_is_told_from_a_command_that_fails(guest: RunGuest) -> None:
    done = guest("--seconds", "120", "sh", "-c", "echo before; echo c > /proc/sysrq-trigger; sleep 60")
    assert (done.returncode, done.stdout) == (125, "before\n")
    assert "polywan: the guest died; its console:\n" in done.stderr


def test_what_a_command_leaves_running_does_not_hold_the_guest(guest: RunGuest) -> None:
    assert guest("--seconds", "120", "sh", "-c", "sleep 600 & exit 3").returncode == 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_guest_and_leaves_nothing(
    argv: list[str], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    up = tmp_path / "up"
    words = [*argv, "--rw", str(tmp_path), "sh", "-c", f"touch {up}; sleep 600"]
    process = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, cwd=HERE, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not up.exists() and time.monotonic() < deadline:
        # Nothing can be awaited across kernels.
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(30) == status
    assert [path.name for path in tmp_path.iterdir()] == ["up"]
    assert guests_with(tmp_path) == []


def guests_with(directory: Path) -> list[str]:
    """Return the command lines that name a directory."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{directory}/polywan-vm-" in line:
            lines.append(line)
    return lines
