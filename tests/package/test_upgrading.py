"""An upgrade: what the scripts of the package ask of systemd, which a program that takes notes stands in for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.debian_roots import DebianRoot

GOOD = '[uplinks.fibre]\\ninterface = "eth1"\\n'
BAD = '[uplinks.fibre]\\ninterfaec = "eth1"\\n'
NOTES = """
mkdir -p /run/systemd/system /run/notes
cat >/usr/bin/systemctl <<'END'
#!/bin/sh
echo "$*" >>/run/notes/systemctl
case "$*" in
*is-enabled*) echo disabled; exit 1 ;;
*is-active*polywan-web*) exit ${PAGE:-3} ;;
esac
exit ${SYSTEMCTL:-0}
END
chmod +x /usr/bin/systemctl
"""
SHOW = "echo; echo NOTES; cat /run/notes/systemctl 2>/dev/null"


@pytest.fixture
def box(installed: Callable[[str], tuple[DebianRoot, str]], tmp_path: Path) -> DebianRoot:
    return installed("bookworm")[0].copy(tmp_path)


def upgraded(box: DebianRoot, file: str, before: str = "") -> tuple[str, list[str]]:
    """Write the file and upgrade; return what is said meanwhile and what systemd is asked."""
    write = f"printf '{file}' >/etc/polywan/polywan.toml"
    done = box.run(f"{NOTES}{write}; {before} dpkg --install /tmp/later.deb 2>&1; {SHOW}")
    said, _, notes = done.stdout.partition("\nNOTES\n")
    return said, [line for line in notes.splitlines() if "polywan" in line]


def test_the_first_installation_starts_and_enables_nothing(prepared: Callable[[str], DebianRoot]) -> None:
    done = prepared("bookworm").run(f"{NOTES}export SYSTEMCTL=3; dpkg --install /tmp/polywan.deb 2>&1; {SHOW}")
    notes = done.stdout.partition("\nNOTES\n")[2].splitlines()
    assert [line for line in notes if "start" in line or line.startswith("enable")] == []


def test_an_upgrade_restarts_a_daemon_that_runs_and_never_stops_it_before(box: DebianRoot) -> None:
    said, asked = upgraded(box, GOOD)
    assert "polywan (9.9.9)" in said
    assert [line for line in asked if "stop" in line] == []
    assert [line for line in asked if "restart" in line] == ["--quiet --system restart polywan.service"]


def test_a_file_that_the_new_version_refuses_leaves_the_daemon_running(box: DebianRoot) -> None:
    said, asked = upgraded(box, BAD)
    assert "/etc/polywan/polywan.toml:2: uplinks.fibre.interfaec: unknown key" in said
    assert "the daemon that runs goes on, since the new version refuses the file" in said
    assert [line for line in asked if "restart" in line or "stop" in line] == []


def test_a_file_that_the_daemons_user_may_not_read_leaves_the_daemon_running(box: DebianRoot) -> None:
    said, asked = upgraded(box, GOOD, "chmod 600 /etc/polywan/polywan.toml;")
    assert "the daemon that runs goes on" in said
    assert [line for line in asked if "restart" in line] == []


def test_a_page_that_is_served_is_renewed_also_when_the_daemon_stays(box: DebianRoot) -> None:
    _, asked = upgraded(box, BAD, "export PAGE=0;")
    assert [line for line in asked if "restart" in line] == ["--quiet --system restart polywan-web.service"]


def test_an_upgrade_starts_no_daemon_that_does_not_run(box: DebianRoot) -> None:
    _, asked = upgraded(box, GOOD, "export SYSTEMCTL=3;")
    assert [line for line in asked if "start" in line] == []


def test_removal_stops_the_daemon_and_says_that_traffic_flows_on(box: DebianRoot) -> None:
    done = box.run(f"{NOTES}dpkg --remove polywan 2>&1; {SHOW}")
    assert "the daemon stops; traffic goes on as it decided last" in done.stdout
    assert "stop polywan.service" in done.stdout


def test_an_upgrade_leaves_no_compiled_module_of_the_version_before(box: DebianRoot) -> None:
    compiled = "/usr/lib/polywan/polywan/__pycache__"
    box.run(f"cp {compiled}/files.*.pyc {compiled}/old.cpython-311.pyc; dpkg --install /tmp/later.deb")
    assert box.run(f"ls {compiled}/files.*.pyc {compiled}/old.*.pyc", check=False).stdout.count(".pyc") == 1


def test_purge_keeps_what_somebody_else_put_beside_the_configuration(box: DebianRoot) -> None:
    done = box.run("touch /etc/polywan/polywan.toml /etc/polywan/list.txt; dpkg --purge polywan 2>&1")
    assert "/etc/polywan stays: there are files in it that polywan did not make" in done.stdout
    assert box.run("find /etc/polywan").stdout.split() == ["/etc/polywan", "/etc/polywan/list.txt"]


def test_another_python_of_the_system_compiles_the_tree_for_itself(box: DebianRoot) -> None:
    box.run("find /usr/lib/polywan -name '*.pyc' -delete")
    box.run("/usr/share/python3/runtime.d/polywan.rtupdate rtupdate python3.10 python3.11")
    assert ".pyc" in box.run("ls /usr/lib/polywan/polywan/__pycache__").stdout


def test_leftovers_of_the_install_script_are_pointed_out(box: DebianRoot) -> None:
    done = box.run("ln -s /opt/polywan/bin/polywan /usr/local/bin/polywan; dpkg --install /tmp/later.deb 2>&1")
    assert "/usr/local/bin/polywan is not of this package and hides what it brings" in done.stdout
