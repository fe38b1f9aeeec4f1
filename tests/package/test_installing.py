"""Installed into Debian systems that reach no network, used there, removed and purged."""

from __future__ import annotations

from support.debian_roots import DebianRoot

INSTALL = "dpkg --install /tmp/polywan.deb"
RECORDS = ("/var/lib/dpkg/", "/var/lib/systemd/deb-systemd-helper-enabled/")
"""Where the system notes what a package had, until it is purged."""

SAMPLE = '[uplinks.fibre]\\ninterface = "eth1"\\n'


def test_it_is_installed_without_a_network_and_does_nothing_until_it_is_told_to(system: DebianRoot) -> None:
    done = system.run(f"{INSTALL}; polywan version; ls /etc/systemd/system/*.wants; id polywan")
    assert "Next: polywan init, then: systemctl enable --now polywan" in done.stdout
    assert "polywan 0." in done.stdout
    assert "polywan.service" not in done.stdout


def test_the_installed_command_checks_a_file_with_the_systems_python(system: DebianRoot) -> None:
    script = f"{INSTALL}; printf '{SAMPLE}' >/etc/polywan/polywan.toml; polywan check; head -1 /usr/bin/polywan"
    done = system.run(script)
    assert "/etc/polywan/polywan.toml: OK (1 uplink, 1 policy, 0 rules)" in done.stdout
    assert "#!/usr/bin/python3 -IS" in done.stdout


def test_what_the_user_installed_for_python_is_neither_used_nor_changed(system: DebianRoot) -> None:
    spoil = """
    for place in /usr/local/lib/python3.*/dist-packages /usr/lib/python3/dist-packages /root/trap; do
        mkdir -p $place/pydantic && echo 'raise SystemExit("the user'"'"'s pydantic")' >$place/pydantic/__init__.py
    done
    export PYTHONPATH=/root/trap PYTHONHOME=/nonexistent
    """
    done = system.run(f"{INSTALL}; printf '{SAMPLE}' >/etc/polywan/polywan.toml; {spoil}\n polywan check")
    assert "OK (1 uplink" in done.stdout


def test_removal_keeps_the_configuration_and_purge_leaves_nothing(system: DebianRoot) -> None:
    before = system.files()
    system.run(f"{INSTALL}; printf '{SAMPLE}' >/etc/polywan/polywan.toml; polywan version; dpkg --remove polywan")
    kept = {path for path in system.files() if "polywan" in path and not path.startswith(RECORDS)}
    assert kept == {"/etc/polywan", "/etc/polywan/polywan.toml", "/var/lib/polywan"}
    system.run("dpkg --purge polywan")
    assert {path: line for path, line in system.files().items() if before.get(path) != line} == {}
    assert system.run("getent passwd polywan", check=False).returncode == 2
