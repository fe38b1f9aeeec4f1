"""Hooks of the real daemon: called for what happens to real links, in order, and never in the way of failover."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from polywan.lab.network import Lab
from polywan.lab.scenario import configuration
from polywan.lab.traffic import SteadyLoad
from support.netns import polywan, until, with_servers

if TYPE_CHECKING:
    from support.netns import StartDaemon, WaitFor

KEYS = ("up", "down", "degraded", "recovered", "disabled", "address", "all_down", "any_up", "quota")


EXAMPLES = Path(__file__).parents[2] / "examples" / "hooks"


def recorded(directory: Path) -> list[dict[str, str]]:
    """What hooks were told, in the order of their calls."""
    path = directory / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def brief(directory: Path) -> list[str]:
    return [f"{call['UPLINK']} {call['HOOK']}" for call in recorded(directory)]


def with_hooks(lab: Lab, directory: Path, *commands: str) -> str:
    """Return a configuration whose hooks are programs that write down what they are told; and further lines."""
    program = directory / "hook"
    program.write_text(
        f"#!{sys.executable} -I\n"
        "import json, os, sys\n"
        f"with open({str(directory / 'calls')!r}, 'a') as file:\n"
        "    file.write(json.dumps({**os.environ}) + '\\n')\n"
    )
    program.chmod(0o755)
    named = [f'{key} = ["{program}"]' for key in KEYS if not any(c.startswith(f"{key} =") for c in commands)]
    text = configuration(lab.topology, (1, 1, 1)).replace('hold_down = "3s"', 'hold_down = "1s"\nrise = 2', 1)
    return text + "\n".join(["", "[hooks]", *named, *commands, ""])


def test_hooks_are_called_in_order_and_told_what_the_journal_says(
    lab: Lab, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(lab, with_hooks(lab, tmp_path))

    async def story() -> None:
        await until(lambda: len(recorded(tmp_path)) == 6)
        assert sorted(brief(tmp_path)) == sorted(f"isp{n} {hook}" for n in (1, 2, 3) for hook in ("up", "address"))
        async with SteadyLoad(lab):
            await until(lambda: daemon.uplink(1).rx_bytes > 20_000)
            lab.cut(1)
            await until(lambda: len(recorded(tmp_path)) == 7)
            lab.cut(2)
            lab.cut(3)
            await until(lambda: len(recorded(tmp_path)) == 10)
            lab.restore(1)
            await until(lambda: len(recorded(tmp_path)) == 12)
        later = recorded(tmp_path)[6:]
        lost = later[0]
        assert (lost["UPLINK"], lost["HOOK"], lost["INTERFACE"]) == ("isp1", "down", "wan1")
        assert (lost["STATE"], lost["PREVIOUS_STATE"], lost["REASON"]) == ("down", "up", "no carrier")
        assert (lost["ADDRESS"], lost["GATEWAY"]) == ("100.64.1.2", "100.64.1.1")
        assert (lost["ADDRESS6"], lost["GATEWAY6"]) == ("2001:db8:64:1::2", "2001:db8:64:1::1")
        assert lost["SERVING"] == "isp2 isp3"
        assert int(lost["DURATION"]) >= 0
        assert int(lost["BYTES_RECEIVED"]) > 0
        assert int(lost["BYTES_SENT"]) > 0
        assert lost["TABLE"] == str(daemon.uplink(1).table)
        assert not {"HOME", "USER", "INVOCATION_ID", "PYTHONUNBUFFERED"} & lost.keys()
        whole = [c for c in later if c["HOOK"] in ("all_down", "any_up")]
        assert [(c["HOOK"], c["SERVING"]) for c in whole] == [("all_down", ""), ("any_up", "isp1")]
        of_one = [c["HOOK"] for c in recorded(tmp_path) if c["UPLINK"] == "isp1" and c["HOOK"] != "any_up"]
        assert of_one == ["up", "address", "down", "up"]

    with_servers(lab, story)


def test_another_address_calls_its_hook_with_both(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    start_daemon(lab, with_hooks(lab, tmp_path))
    wait_for(lambda: len(recorded(tmp_path)) == 6)
    lab.router.ip(["address del 100.64.2.2/24 dev wan2", "address add 100.64.2.9/24 dev wan2"])
    lab.router.ip(["route replace default via 100.64.2.1 dev wan2 metric 102"])
    # On a slow machine the link is seen without an address first: that is another hook, with the same PREVIOUS_ADDRESS.
    call = wait_for(lambda: next((c for c in recorded(tmp_path)[6:] if c["HOOK"] == "address"), None))
    assert call is not None
    assert (call["UPLINK"], call["PREVIOUS_ADDRESS"], call["ADDRESS"]) == ("isp2", "100.64.2.2", "100.64.2.9")
    assert call["GATEWAY"] == "100.64.2.1"


@pytest.mark.alone
def test_a_hook_that_hangs_delays_no_failover_and_no_journal(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    """Every hook hangs for its whole time, while links are lost and return."""
    hang = [f'{key} = ["sh", "-c", "exec sleep 300"]' for key in KEYS]
    daemon = start_daemon(lab, with_hooks(lab, tmp_path, *hang, 'timeout = "3s"'), may_complain=True)
    for number in (1, 2):
        since = len(daemon.log)
        pulled = lab.cut(number)
        line = daemon.wait_log(lambda text, n=number: f"isp{n} is down: no carrier" in text, 5.0, since)  # type: ignore[misc]  # the default binds it now
        assert line is not None
        assert line.at - pulled < 0.5
    began = time.monotonic()
    daemon.status()
    assert time.monotonic() - began < 1.0
    wait_for(lambda: any("did not end within 3 s and was killed" in text for text in daemon.status().warnings))
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 3.0


def test_bad_hooks_are_sentences_and_the_rest_goes_on(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("hello")
    bad = [
        'down = "/nonexistent/hook"',
        f'up = "{tmp_path}/plain"',
        'address = ["yes", "flood"]',
        'disabled = ["sh", "-c", "setsid sleep 1 & sleep 300 & exit 0"]',
    ]
    daemon = start_daemon(lab, with_hooks(lab, tmp_path, *bad))
    lab.cut(1)
    polywan(daemon, "uplink", "disable", "isp2")

    def said() -> list[str]:
        return [line.text.partition("hook.failed: ")[2] for line in daemon.log if "hook.failed: " in line.text]

    wait_for(lambda: len(said()) == 4)
    assert sorted(text.partition(" of ")[0] for text in said()) == ["address", "disabled", "down", "up"]
    assert any(text.endswith("/nonexistent/hook cannot be run: no such file or directory") for text in said())
    assert any(text.endswith("plain cannot be run: permission denied") for text in said())
    assert any(text.endswith("yes wrote more than 1 MiB and was killed") for text in said())
    assert any("left programs running in its background" in text for text in said())
    lines = [line.text for line in daemon.log if "hook.output" in line.text]
    assert len(lines) <= 3 * 22
    assert [u.state for u in daemon.status().uplinks] == ["down", "disabled", "up"]


def test_a_reload_takes_other_hooks(lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path) -> None:
    daemon = start_daemon(lab, with_hooks(lab, tmp_path))
    wait_for(lambda: len(recorded(tmp_path)) == 6)
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace(f'\ndown = ["{tmp_path}/hook"]', f'\ndown = ["touch", "{tmp_path}/touched"]'))
    assert daemon.reload().changes == ("down of [hooks] changed",)
    lab.cut(1)
    wait_for((tmp_path / "touched").exists)
    assert len(recorded(tmp_path)) == 6


def test_the_example_for_a_web_service_works_for_a_user_without_rights(
    lab: Lab, start_daemon: StartDaemon, wait_for: WaitFor, tmp_path: Path
) -> None:
    """As the service's user: no capability, and none to be gained."""
    if shutil.which("curl") is None:
        pytest.skip("curl is absent (package curl)")
    # The lab's own /run can be read by everybody.
    example = Path("/run") / f"{tmp_path.name}-webhook"
    shutil.copy(EXAMPLES / "webhook", example)
    listener = lab.router.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.settimeout(10.0)
    rights = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    words = ["setpriv", *rights, "--inh-caps=-all", str(example), f"http://127.0.0.1:{listener.getsockname()[1]}/x"]
    start_daemon(lab, with_hooks(lab, tmp_path, f"down = {json.dumps(words)}"))
    lab.cut(3)
    with closing(listener), closing(listener.accept()[0]) as connection:
        connection.settimeout(10.0)
        received = b""
        while b"duration=" not in received:
            received += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
    assert b"POST /x" in received
    assert b"uplink=isp3&state=down&previous_state=up&reason=no" in received


def test_the_check_warns_of_hooks_that_cannot_be_called(lab: Lab, tmp_path: Path) -> None:
    text = with_hooks(lab, tmp_path, 'down = "/nonexistent"', 'up = "hooks/up"', f'address = "{tmp_path}/plain"')
    (tmp_path / "plain").write_text("")
    file = tmp_path / "polywan.toml"
    file.write_text(text)
    argv = [sys.executable, "-m", "polywan", "check", "--config", str(file)]
    done = lab.router.run(argv, check=False)
    assert done.returncode == 0
    warned = [line for line in done.stderr.splitlines() if "hooks." in line]
    assert any("/nonexistent: hooks.down: does not exist, so the hook cannot be called" in line for line in warned)
    assert any("hooks/up: hooks.up: is a relative path" in line for line in warned)
    assert any("hooks.address: is not executable" in line and "chmod +x" in line for line in warned)
