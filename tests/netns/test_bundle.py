"""`polywan bundle` on a machine full of what nobody else should see."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.config import load
from polywan.lab.daemon import DaemonProcess
from polywan.lab.namespaces import Namespace
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

SECRETS = (
    "Tr0ub4dor&3xyz",
    "s3cr3t-t0k3n-of-mine",
    "aW50ZXJuYWwtc2VjcmV0",
    "T024BE7LD/B0G7KU2/x9fQ",
    "hunter2!hunter2",
)
PUBLIC = ("84.12.33.7", "84.12.33.1", "84.12.40.0", "91.64.7.9", "2a02:8108:1:201::7", "2a02:8108:1:200::1")
NAMED = ("joe@fritz.example", "joe.smith", "00:16:3e:5a:6b:7c")
HOSTILE = "w\x1b[31mx"
ABOUT = f"""
# password: {SECRETS[4]}
[hooks]
up = ["/usr/bin/curl", "-H", "Authorization: Bearer {SECRETS[2]}", "--token", "{SECRETS[1]}", "https://hooks.slack.example/{SECRETS[3]}"]
down = ["/home/joe.smith/mail", "--password={SECRETS[0]}", "joe@fritz.example"]

[[rules]]
from = ["84.12.32.0/20", "84.12.40.0-84.12.41.255", "2a02:8108:1:200::/56"]
mac = "00:16:3E:5A:6B:7C"
action = "bypass"

[[rules]]
to = "91.64.7.9"
uplink = "isp1"
"""


def settle(lab: Lab) -> None:
    """Give the router addresses, routes, neighbours, rules and a device of somebody's."""
    for words in (
        "ip address add 84.12.33.7/24 dev wan1",
        "ip route add 91.64.7.0/24 via 84.12.33.1 dev wan1",
        "ip rule add from 84.12.33.7 lookup 77 priority 99",
        "ip route add default via 84.12.33.1 table 77",
        "ip address add 2a02:8108:1:201::7/64 dev wan1 nodad",
        "ip route add 2a02:8108:1:300::/56 via 2a02:8108:1:201::1 dev wan1",
        "ip neighbour add 84.12.33.1 lladdr 00:16:3e:5a:6b:7c dev wan1",
        "ip neighbour add 2a02:8108:1:201:216:3eff:fe5a:6b7c lladdr 00:16:3e:5a:6b:7c dev wan1",
        "nft add table inet mine",
        "nft add set inet mine blocked { type ipv4_addr; flags interval; }",
        "nft add element inet mine blocked { 84.12.40.0-84.12.41.255, 91.64.7.9 }",
    ):
        lab.router.run(words.split())
    lab.router.run(["ip", "link", "add", HOSTILE, "type", "bridge"])


def bundled(place: Namespace, out: Path, *words: str, prefix: tuple[str, ...] = ()) -> tuple[dict[str, str], str]:
    """Write a bundle; return its files by name, and what was said."""
    argv = [*prefix, sys.executable, "-m", "polywan", "bundle", "--out", str(out), *words]
    done = place.run(argv, check=False)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    files = {}
    with tarfile.open(out) as tar:
        for member in tar.getmembers():
            assert member.isreg()
            content = tar.extractfile(member)
            assert content is not None
            folder, _, name = member.name.partition("/")
            assert folder == "polywan-bundle"
            files[name] = content.read().decode()
    return files, done.stderr


def ours(daemon: DaemonProcess) -> tuple[str, ...]:
    places = ("--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state))
    return ("--config", str(daemon.config), *places)


def spellings(text: str) -> set[str]:
    """How an address may be written anywhere."""
    address = ip_address(text)
    found = {text, address.exploded, address.reverse_pointer, address.packed.hex()}
    return found | ({text.replace(".", "-"), address.packed[::-1].hex()} if address.version == 4 else set())


def test_a_bundle_beside_a_daemon_has_everything_and_nothing_that_is_private(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    settle(lab)
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)) + ABOUT, may_complain=True)
    lab.cut(2)
    wait_for(lambda: daemon.uplink(2).state == "down", 5.0, "the loss is noticed")
    wait_for(lambda: any("hook.failed" in line.text for line in daemon.log), 10.0, "the hook fails")
    name = "import os, socket, sys; socket.sethostname('joes\\x1b[2Jbox'); os.execvp(sys.argv[1], sys.argv[1:])"

    files, said = bundled(
        lab.router, tmp_path / "b.tar.gz", *ours(daemon), prefix=("unshare", "--uts", sys.executable, "-c", name)
    )

    assert {"README.txt", "masked.txt", "status.json", "plan.txt", "events.json", "doctor.json"} <= set(files)
    assert {"memory.json", "versions.txt", "kernel/ruleset.nft", "kernel/routes6.json", "check.txt"} <= set(files)
    for part, text in {**files, "the terminal": said}.items():
        low = text.lower()
        for secret in (*SECRETS, *NAMED, "joes"):
            assert secret.lower() not in low, (part, secret)
        for address in PUBLIC:
            for form in spellings(address):
                assert re.search(rf"(?<![0-9a-f.:-]){re.escape(form.lower())}(?![0-9a-f:]|[.][0-9])", low) is None, (
                    part,
                    form,
                )
        assert all(c.isprintable() or c in "\n\t" for c in text), part
    for part, text in files.items():
        if part.endswith(".json"):
            json.loads(text)
    # It still makes sense: the file loads, and what was one network is one.
    config = tmp_path / "masked" / "polywan.toml"
    config.parent.mkdir()
    config.write_text(files["config/polywan.toml"])
    assert len(load(config).rules) == 2
    (config.parent / "box.json").write_text(files["recording.json"])
    argv = [sys.executable, "-m", "polywan", "plan", "--config", str(config), "--state-dir", str(config.parent)]
    elsewhere = subprocess.run(
        [*argv, "--observed", str(config.parent / "box.json")], capture_output=True, text=True, check=False
    )
    assert elsewhere.returncode in {0, 9}, elsewhere.stderr
    routes = json.loads(files["kernel/routes4.json"])
    via = next(route["gateway"] for route in routes if route["dst"] == "default" and route.get("table") == "77")
    (own,) = [
        address["local"]
        for link in json.loads(files["kernel/addresses.json"])
        for address in link["addr_info"]
        if address["local"].startswith("240.")
    ]
    assert (own.rpartition(".")[0], own.rpartition(".")[2], via.rpartition(".")[2]) == (
        via.rpartition(".")[0],
        "7",
        "1",
    )
    assert own in files["kernel/rules4.json"]
    assert json.loads(files["events.json"])[-1]["state"] == "down"
    assert "config/polywan.toml" in files["masked.txt"]


def test_a_bundle_changes_nothing(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    shown = ("ip rule", "ip -6 rule", "ip route show table all", "nft -s list ruleset")
    before = [lab.router.run(words.split()).stdout for words in shown]
    files, said = bundled(lab.router, tmp_path / "b.tar.gz", *ours(daemon))
    assert [lab.router.run(words.split()).stdout for words in shown] == before
    assert files["plan.txt"].splitlines()[-1] == "nothing to change"
    assert [line.partition(": ")[2].partition(":")[0] for line in said.splitlines() if "not in it" in line] == [
        "log.txt"
    ]


@pytest.mark.needs("root")
def test_without_a_daemon_and_without_root_it_says_what_is_missing(lab: Lab, tmp_path: Path) -> None:
    settle(lab)
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)
    bad = tmp_path / "polywan.toml"
    bad.write_text(f'[uplinks.fibre]\ninterface = 7\npassword = "{SECRETS[0]}"\n')
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    nowhere = ("--config", str(bad), "--state-dir", str(tmp_path / "none"))

    files, said = bundled(lab.router, tmp_path / "b.tar.gz", *nowhere, prefix=user)

    assert "not in it: kernel/ruleset.nft: " in said
    assert "not in it: status.json: no daemon runs in this network namespace" in said
    assert "not in it: plan.txt: the configuration is not good: check.txt says why" in said
    assert "uplinks.fibre.interface" in files["check.txt"]
    assert 'password = "masked-1"' in files["config/polywan.toml"]
    assert not any(SECRETS[0] in text or "84.12.33.7" in text for text in files.values())


@pytest.mark.alone
def test_a_bundle_of_fifty_three_links_takes_no_longer_than_it_may(
    lab_of: BuildLab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    lab = lab_of(53)
    daemon = start_daemon(lab, configuration(lab.topology, (1,) * 53))
    began = time.monotonic()
    bundled(lab.router, tmp_path / "b.tar.gz", *ours(daemon))
    assert time.monotonic() - began < 15.0


def test_one_that_is_interrupted_leaves_nothing(lab: Lab, start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (3, 2, 1)))
    folder = tmp_path / "out"
    folder.mkdir()
    argv = [sys.executable, "-m", "polywan", "bundle", "--out", str(folder / "b.tar.gz"), *ours(daemon)]
    daemon.process.send_signal(signal.SIGSTOP) if daemon.process else None
    try:
        process = lab.router.start(argv, stderr=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10.0)
    finally:
        daemon.process.send_signal(signal.SIGCONT) if daemon.process else None
    # The latter while Python makes a class: it then dies of the signal after all.
    assert process.returncode in {130, -signal.SIGINT}
    assert said.strip() == "interrupted"
    assert os.listdir(folder) == []
