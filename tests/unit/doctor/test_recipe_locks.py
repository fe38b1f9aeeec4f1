"""Lock files of scripts: one that was left behind is found, and what is at work or no lock is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from polywan.api.doctor import Finding
from polywan.doctor.box import Box
from polywan.doctor.checks.recipes import stale_lock
from polywan.doctor.facts.locks import lock_names
from polywan.doctor.reading import locks, scripts

UP = """\
#!/bin/bash
while [ -e /var/lock/subsys/if-down.$IFNAME ]; do sleep 3; done
touch /var/lock/subsys/if-up.$IFNAME
rm -f /var/lock/subsys/if-up.$IFNAME
"""
DOWN = """\
#!/bin/bash
while [ -e /var/lock/subsys/if-up.$IFNAME ]; do
    sleep 3
done
touch /var/lock/subsys/if-down.$IFNAME
rm -f /var/lock/subsys/if-down.$IFNAME
"""
RECIPE_3 = {"/etc/ppp/ip-up.local": UP, "/etc/ppp/ip-down.local": DOWN}
LOCK = "var/lock/subsys/if-down.ppp0"
DAY = 86400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with the third recipe's scripts, and processes of a system that started two days ago."""
    for name, text in RECIPE_3.items():
        place = tmp_path / name[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(f"cpu 1 2\nbtime {int(time.time() - 2 * DAY)}\n", "utf-8")
    return tmp_path


def left_behind(root: Path, age: float, name: str = LOCK, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    made = time.time() - age
    os.utime(path, (made, made))


def process(root: Path, number: int, *command: str) -> Path:
    place = root / f"proc/{number}"
    (place / "fd").mkdir(parents=True)
    (place / "cmdline").write_text("\0".join(command) + "\0", "utf-8")
    return place


def found(root: Path) -> list[Finding]:
    return list(stale_lock.check(Box(locks=locks.read(scripts.read(root), root, root / "proc"))))


def test_a_lock_that_no_process_holds_is_found(root: Path) -> None:
    left_behind(root, age=3600)

    (finding,) = found(root)

    assert (
        finding.what
        == "the lock file /var/lock/subsys/if-down.ppp0 was left behind, and /etc/ppp/ip-up.local waits for it"
    )
    assert "1 h old" in finding.evidence[0]
    assert finding.fix is not None
    assert finding.fix.steps[0].command == ("rm", "-f", "/var/lock/subsys/if-down.ppp0")


def test_one_that_is_older_than_the_system_is_found(root: Path) -> None:
    left_behind(root, age=3 * DAY)

    (finding,) = found(root)

    assert "before the system started" in finding.evidence[0]


def test_a_script_that_has_only_just_made_it_may_be_at_work(root: Path) -> None:
    left_behind(root, age=5)

    assert found(root) == []


def test_one_whose_maker_runs_is_not_found_and_one_whose_waiter_runs_is(root: Path) -> None:
    left_behind(root, age=3600)

    process(root, 9, "/bin/bash", "/etc/ppp/ip-up.local", "ppp0")
    assert len(found(root)) == 1
    process(root, 10, "/bin/bash", "/etc/ppp/ip-down.local", "ppp0")
    assert found(root) == []


def test_one_that_a_process_has_open_or_that_names_one_is_not_found(root: Path) -> None:
    left_behind(root, age=3600)
    (process(root, 9, "sleep") / "fd/3").symlink_to(root / LOCK)
    assert found(root) == []

    (root / "proc/9/fd/3").unlink()
    left_behind(root, age=3600, text="9\n")
    assert found(root) == []


def test_one_of_a_script_with_a_name_for_it_or_of_lockfile_is_known() -> None:
    named = "LOCK=/run/lock/dial\nif [ -f $LOCK ]; then\n  exit 1\nfi\ntouch ${LOCK}\nrm -f $LOCK\n"
    atomic = "lockfile -r 3 /var/lock/dial.lock || exit 1\nrm -f /var/lock/dial.lock\n"
    folder = 'until mkdir /tmp/dial.d; do [ -d "/tmp/dial.d" ] && exit; done\nrmdir /tmp/dial.d\n'

    assert [next(lock_names({"/a": text})).pattern for text in (named, atomic, folder)] == [
        "/run/lock/dial",
        "/var/lock/dial.lock",
        "/tmp/dial.d",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "touch /run/uplink-is-up\n[ -e /run/uplink-is-up ] && ip route flush cache\n",
        "[ -e /run/nologin ] && exit 0\n",
        "exec 9>/run/lock/dial\nflock 9\n[ -e /run/lock/dial ] || exit\nrm -f /run/lock/dial\n",
        "[ -e /run/$1 ] && exit\ntouch /run/$1\nrm -f /run/$1\n",
        "[ -e /run/dial.pid ] && exit\necho $$ > /run/dial.pid\nrm -f /run/dial.pid\n",
        "# while [ -e /run/lock/x ]; do touch /run/lock/x; rm -f /run/lock/x\n",
        "[ -e /etc/dial ] && exit\ntouch /etc/dial\nrm -f /etc/dial\n",
    ],
    ids=["note", "foreign", "flock", "any", "process", "comment", "elsewhere"],
)
def test_what_is_no_lock_is_not_taken_for_one(text: str) -> None:
    assert list(lock_names({"/etc/ppp/ip-up": text})) == []


def test_scripts_are_regular_files_that_are_not_long(tmp_path: Path) -> None:
    folder = tmp_path / "etc/ppp/ip-up.d"
    folder.mkdir(parents=True)
    (folder / "good").write_text("ip route\n", "utf-8")
    (folder / "linked").symlink_to("good")
    (folder / "long").write_text("#" * (scripts.LONGEST_SCRIPT + 1), "utf-8")
    (folder / "program").write_bytes(b"\x7fELF\0")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")

    assert sorted(scripts.read(tmp_path)) == ["/etc/ppp/ip-up.d/good", "/etc/ppp/ip-up.d/linked"]


def test_a_machine_without_such_files_has_no_scripts(tmp_path: Path) -> None:
    assert scripts.read(tmp_path) == {}
