"""Installed into Debian systems that reach no network, used there, removed and purged."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.debian_roots import DebianRoot

WRITE = """printf '[uplinks.fibre]\\ninterface = "eth1"\\n' >/etc/polywan/polywan.toml\n"""
RECORDS = ("/var/lib/dpkg/", "/var/lib/systemd/deb-systemd-helper-enabled/")
"""Where the system notes what a package had, until it is purged."""

TRAPS = """
for place in /usr/local/lib/python3.*/dist-packages /usr/lib/python3/dist-packages /root/trap; do
    mkdir -p $place/pydantic && echo 'raise SystemExit("another pydantic")' >$place/pydantic/__init__.py
done
export PYTHONPATH=/root/trap PYTHONHOME=/nonexistent
"""


@pytest.fixture
def system(installed: Callable[[str], tuple[DebianRoot, str]], suite: str, tmp_path: Path) -> DebianRoot:
    return installed(suite)[0].copy(tmp_path)


def test_it_is_installed_without_a_network_and_does_nothing_until_it_is_told_to(
    installed: Callable[[str], tuple[DebianRoot, str]], suite: str, system: DebianRoot
) -> None:
    assert "Next: polywan init, then: systemctl enable --now polywan" in installed(suite)[1]
    done = system.run("polywan version; ls /etc/systemd/system/*.wants; id polywan")
    assert "polywan 0." in done.stdout
    assert "polywan.service" not in done.stdout


def test_the_installed_command_works_by_the_systems_python_whatever_else_is_installed_for_it(
    system: DebianRoot,
) -> None:
    done = system.run(f"{WRITE}{TRAPS}polywan check")
    assert "/etc/polywan/polywan.toml: OK (1 uplink, 1 policy, 0 rules)" in done.stdout


def test_a_bundle_of_the_installed_command_names_the_libraries_of_its_own_tree(system: DebianRoot) -> None:
    script = "polywan bundle --out /tmp/b.tar.gz; tar xzOf /tmp/b.tar.gz polywan-bundle/versions.txt"
    said = system.run(f"{WRITE}{TRAPS}{script}").stdout
    assert re.search(r"^pydantic 2\.", said, re.MULTILINE), said
    assert re.search(r"^dnspython 2\.", said, re.MULTILINE), said


def test_the_lab_of_the_installed_package_keeps_its_promises(system: DebianRoot) -> None:
    done = system.run("polywan lab --connections 60 --json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_removal_keeps_the_configuration_and_purge_leaves_nothing(
    prepared: Callable[[str], DebianRoot], suite: str, system: DebianRoot
) -> None:
    before = prepared(suite).files()
    system.run(f"{WRITE} polywan version; dpkg --remove polywan")
    kept = {path for path in system.files() if "polywan" in path and not path.startswith(RECORDS)}
    assert kept == {
        "/etc/polywan",
        "/etc/polywan/polywan.toml",
        "/etc/logcheck/ignore.d.server/polywan",
        "/var/lib/polywan",
        "/var/lib/polywan-web",
    }
    system.run("dpkg --purge polywan")
    assert {path: line for path, line in system.files().items() if before.get(path) != line} == {}
    assert system.run("getent passwd polywan polywan-web", check=False).returncode == 2
