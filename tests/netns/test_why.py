"""`polywan why` on a machine that runs: what it says, and when the kernel says something else."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from polywan.api import calls
from polywan.api.requests import Words
from polywan.api.why import Explanation
from polywan.core.errors import ControlError
from polywan.core.net import Family
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.servers import ECHO_PORT
from polywan.lab.topology import LAN_CLIENT, LAN_ROUTER, SERVERS
from polywan.lab.traffic import connect
from support.netns import with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

FAMILIES = [Family.V4, Family.V6]
CLIENT = {family: str(address.ip) for family, address in LAN_CLIENT.items()}
SERVER = {family: str(addresses[0]) for family, addresses in SERVERS.items()}


def why(daemon: DaemonProcess, source: str, target: str, **words: str) -> Explanation:
    answer = daemon.client.ask(calls.WHY, Words(words={"from": source, "to": target, **words}))
    print("\n".join(answer.text))
    return answer


def uplinks(answer: Explanation) -> dict[str, float]:
    return {uplink.name: uplink.share for uplink in answer.uplinks}


@pytest.fixture
def daemon(lab: Lab, start_daemon: StartDaemon) -> DaemonProcess:
    return start_daemon(lab, configuration(lab.topology, (2, 1, 1)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["client", "-"])
def test_turns_are_told_as_shares_and_the_kernel_agrees(daemon: DaemonProcess, family: Family, source: str) -> None:
    explanation = why(daemon, CLIENT[family] if source == "client" else source, SERVER[family])
    assert uplinks(explanation) == {"isp1": 0.5, "isp2": 0.25, "isp3": 0.25}
    assert explanation.in_interface == ("lan0" if source == "client" else None)
    assert [answer.interface for answer in explanation.kernel] == ["wan1", "wan2", "wan3"]
    assert explanation.agrees is True


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stays_inside_is_not_ours(daemon: DaemonProcess, family: Family) -> None:
    answer = why(daemon, "-", CLIENT[family])
    assert (answer.outcome, answer.interface, answer.agrees) == ("main", "lan0", True)
    assert why(daemon, CLIENT[family], str(LAN_ROUTER[family].ip)).outcome == "here"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_comes_in_by_an_uplink_is_answered_by_it(daemon: DaemonProcess, lab: Lab, family: Family) -> None:
    own = str(lab.topology.uplink(2).addresses[family].own.ip)
    answer = why(daemon, SERVER[family], own, in_interface="wan2")
    assert (answer.outcome, uplinks(answer), answer.agrees) == ("outside", {"isp2": 1}, True)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["client", "-"])
def test_a_specific_route_is_left_alone_also_by_the_gateway_of_mains_default(
    daemon: DaemonProcess, lab: Lab, family: Family, source: str, wait_for: WaitFor
) -> None:
    lab.router.ip([f"route add {SERVER[family]} via {lab.topology.uplink(1).addresses[family].gateway}"])
    asker = CLIENT[family] if source == "client" else source
    # Until the daemon has heard of the route, nothing but its address tells by which link a socket of this box sends.
    answer = wait_for(lambda: found if (found := why(daemon, asker, SERVER[family])).outcome == "main" else None)
    assert answer is not None
    assert (answer.interface, answer.uplinks, answer.specific_route, answer.agrees) == ("wan1", (), True, True)


def test_a_rule_that_is_gone_is_noticed(daemon: DaemonProcess, lab: Lab) -> None:
    # The daemon puts it right within milliseconds, until it has done so too often.
    for _ in range(20):
        lab.router.run(["ip", "rule", "del", "fwmark", "0x2000000/0x3f000000"], check=False)
        explanation = why(daemon, CLIENT[Family.V4], SERVER[Family.V4])
        if explanation.agrees is False:
            break
    assert [answer.uplink for answer in explanation.kernel if not answer.agrees] == ["isp2"]
    assert any("THE KERNEL DISAGREES about isp2" in line for line in explanation.text)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_that_leads_to_main_changes_nothing(
    daemon: DaemonProcess, lab: Lab, family: Family, wait_for: WaitFor
) -> None:
    lab.router.run(["ip", f"-{family:d}", "rule", "add", "priority", "100", "lookup", "main"])
    answer = wait_for(lambda: found if (found := why(daemon, CLIENT[family], SERVER[family])).agrees else None)
    assert answer is not None
    assert uplinks(answer) == {"isp1": 0.5, "isp2": 0.25, "isp3": 0.25}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["client", "-"])
def test_a_rule_of_others_that_decides_is_named(
    daemon: DaemonProcess, lab: Lab, family: Family, source: str, wait_for: WaitFor
) -> None:
    by = "dport 443 lookup 200"
    lab.router.run(["ip", f"-{family:d}", "route", "add", "default", "dev", "lan0", "table", "200"])
    lab.router.run(
        ["ip", f"-{family:d}", "rule", "add", "priority", "100", *by.replace("dport", "ipproto tcp dport").split()]
    )

    def known() -> Explanation | None:
        answer = why(daemon, CLIENT[family] if source == "client" else source, target(SERVER[family], 443))
        return answer if "rule of another program: " in answer.reason else None

    explanation = wait_for(known)
    assert explanation is not None
    assert (explanation.interface, explanation.agrees) == ("lan0", True)
    assert "100: from all ipproto tcp dport 443 lookup 200" in explanation.reason
    assert len(why(daemon, CLIENT[family], target(SERVER[family], 80)).uplinks) == 3


def target(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rule_of_others_that_nobody_can_get_ahead_of_is_noticed(
    daemon: DaemonProcess, lab: Lab, family: Family
) -> None:
    lab.router.run(["ip", f"-{family:d}", "rule", "add", "priority", "1", "lookup", "main"])
    explanation = why(daemon, CLIENT[family], SERVER[family])
    assert explanation.agrees is False
    troubles = {answer.uplink: answer.trouble for answer in explanation.kernel}
    assert "by table 254, not 6001" in troubles["isp1"]
    assert "by wan1 (table 254); expected: wan2" in troubles["isp2"]


def polywan(daemon: DaemonProcess, lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polywan", "why", "--runtime-dir", str(daemon.runtime), *argv]
    return lab.router.run(command, check=False)


def test_the_command_tells_the_story_and_ends_with_the_conclusion(daemon: DaemonProcess, lab: Lab) -> None:
    done = polywan(daemon, lab, CLIENT[Family.V4], f"{SERVER[Family.V4]}:443")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "192.168.15.10 to 203.0.113.10 port 443, tcp, arriving by lan0"
    assert "  next in turn; shares: isp1 50 %, isp2 25 %, isp3 25 %" in lines
    assert lines[-1] == "leaves by isp1 (50 %) or isp2 (25 %) or isp3 (25 %)"


def test_a_disagreement_is_exit_9(daemon: DaemonProcess, lab: Lab) -> None:
    lab.router.run(["ip", "rule", "add", "priority", "1", "lookup", "main"])
    done = polywan(daemon, lab, CLIENT[Family.V4], SERVER[Family.V4], "--json")
    assert done.returncode == 9
    assert json.loads(done.stdout)["agrees"] is False


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere", "203.0.113.10"], "expected an IP address"),
        (["192.168.15.10", "203.0.113.10", "--in-interface", "lan7"], "there is no device lan7"),
        (["-", "203.0.113.10", "--user", "nobody-of-that-name"], "there is no user"),
    ],
)
def test_a_question_that_makes_no_sense_is_exit_2(
    daemon: DaemonProcess, lab: Lab, argv: list[str], message: str
) -> None:
    done = polywan(daemon, lab, *argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_a_live_connection_is_told_with_its_uplink(lab: Lab, daemon: DaemonProcess, family: Family) -> None:
    async def story() -> None:
        attempt, connection = await connect(lab, SERVERS[family][0])
        assert connection is not None, attempt.error
        with closing(connection):
            target = f"[{SERVER[family]}]:{ECHO_PORT}" if family is Family.V6 else f"{SERVER[family]}:{ECHO_PORT}"
            answer = why(daemon, CLIENT[family], target, flow="1")
            assert answer.flows is not None
            (flow,) = answer.flows
            seen = lab.topology.uplink(attempt.uplink or 0)
            assert (flow.uplink, flow.server_sees) == (seen.name, str(seen.addresses[family].own.ip))
            assert answer.text[0].startswith("live: ")
            assert why(daemon, CLIENT[family], f"{target[:-4]}7001", flow="1").flows == ()

    with_servers(lab, story)


def test_a_kept_client_is_told_so(lab: Lab, start_daemon: StartDaemon) -> None:
    toml = configuration(lab.topology, (1, 1, 1))
    toml += '[policies.default]\ntiers = [["isp1", "isp2", "isp3"]]\naffinity = { key = "source" }\n'
    daemon = start_daemon(lab, toml)

    async def story() -> None:
        assert len(uplinks(why(daemon, CLIENT[Family.V4], SERVER[Family.V4]))) == 3
        attempt, connection = await connect(lab, SERVERS[Family.V4][0])
        assert connection is not None, attempt.error
        connection.close()
        answer = why(daemon, CLIENT[Family.V4], str(SERVERS[Family.V4][1]))
        assert (answer.affinity, uplinks(answer)) == (True, {f"isp{attempt.uplink}": 1})

    with_servers(lab, story)


def test_a_kill_switch_is_told_for_bound_sockets_too(lab: Lab, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(lab, configuration(lab.topology, (1, 1, 1)) + '[[rules]]\nonly = ["isp2"]\n')
    assert uplinks(why(daemon, CLIENT[Family.V4], SERVER[Family.V4])) == {"isp2": 1}
    bound = why(daemon, str(lab.topology.uplink(3).addresses[Family.V4].own.ip), SERVER[Family.V4])
    assert (bound.outcome, bound.rule) == ("dropped", 1)


def test_no_daemon_is_told_as_such(lab: Lab, daemon: DaemonProcess) -> None:
    daemon.stop()
    with pytest.raises(ControlError):
        why(daemon, CLIENT[Family.V4], SERVER[Family.V4])
