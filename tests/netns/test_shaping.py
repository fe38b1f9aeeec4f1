"""Packets wait in queues of ours, in both directions; what others have there stays, and ours comes back."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from polywan.core.net import Family
from polywan.lab import recipe
from polywan.lab.topology import SERVERS
from polywan.lab.traffic import open_connections
from support.busy_lines import FIRST_PORT, Load, Queue, Where, loaded, narrow
from support.netns import polywan, until, with_servers
from support.shaped_lines import (
    ROOT,
    bandwidth,
    configuration,
    is_shaped,
    kinds,
    leads_to,
    planned,
    qdiscs,
    rate,
    root_of,
    round_trip,
)

if TYPE_CHECKING:
    from support.netns import BuildLab, StartDaemon, WaitFor

pytestmark = [pytest.mark.needs("shaping"), pytest.mark.kernel]

REPAIRED: Final = 2.0
"""Seconds within which what is gone is there again."""

ROOTS: Final = {"cake": "cake", "fq_codel": "htb", "prio": "htb"}
MBIT: Final = 1_000_000
"""Bits a second."""


COUNTING: Final = """
table inet counting {
    counter up { }
    counter down { }
    chain counting {
        type filter hook forward priority -400; policy accept;
        iifname "lan0" tcp dport 7000 counter name up
        oifname "lan0" tcp sport 7000 counter name down
    }
}
"""


@pytest.mark.parametrize("algorithm", ROOTS)
def test_each_direction_has_its_rate(lab_of: BuildLab, start_daemon: StartDaemon, algorithm: str) -> None:
    lab = lab_of(1)
    start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit", algorithm)))
    assert is_shaped(lab, kind=ROOTS[algorithm])

    async def story() -> None:
        found: dict[Load, float] = {}
        loads: dict[Load, tuple[str, int]] = {"udp up": ("wan1", 2_000_000), "udp down": ("lan0", 6_000_000)}
        for load, (device, wanted) in loads.items():
            async with loaded(lab, load, [1], wanted):
                await asyncio.sleep(0.5)
                found[load] = await rate(lab.router, device, 2.0) / wanted
        assert all(0.5 < part < 1.15 for part in found.values()), found

    with_servers(lab, story)


@pytest.mark.needs("ping")
@pytest.mark.parametrize(
    ("where", "algorithm", "speed"),
    [
        ("provider up", "cake", 4),
        ("provider down", "cake", 4),
        ("provider up", "cake", 1),
        ("provider up", "fq_codel", 1),
        ("provider up", "prio", 1),
        ("provider down", "prio", 4),
    ],
)
def test_a_line_under_load_answers_several_times_sooner(
    lab_of: BuildLab, start_daemon: StartDaemon, where: Where, algorithm: str, speed: int
) -> None:
    lab = lab_of(1)
    line = speed * MBIT
    narrow(lab, 1, Queue(where, 1.0), line)
    load: Load = "tcp up" if where == "provider up" else "tcp down"
    device = "wan1" if where == "provider up" else "lan0"
    lines = configuration(lab, "")
    shaped = configuration(lab, bandwidth(f"{speed}Mbit", f"{speed}Mbit", algorithm))
    daemon = start_daemon(lab, lines, may_complain=True)

    async def story() -> None:
        async with loaded(lab, load, [1], line):
            await asyncio.sleep(3.0)
            before, full = await asyncio.gather(round_trip(lab), rate(lab.router, device, 3.0))
        daemon.config.write_text(shaped)
        daemon.reload()
        await until(lambda: is_shaped(lab, kind=ROOTS[algorithm]))
        async with loaded(lab, load, [1], line):
            await asyncio.sleep(3.0)
            after, used = await asyncio.gather(round_trip(lab), rate(lab.router, device, 3.0))
        shown = f"{1000 * before:.0f} ms without, {1000 * after:.0f} ms with shaping, {used / full:.0%} used"
        print(f"{where}, {algorithm} at {speed} Mbit/s: {shown}")
        assert after < before / 3
        assert used > full / 2

    with_servers(lab, story)


@pytest.mark.parametrize("family", [Family.V4, Family.V6])
def test_bands_are_chosen_by_dscp(lab_of: BuildLab, start_daemon: StartDaemon, family: Family) -> None:
    lab = lab_of(1)
    start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit", "prio")))

    def packets(device: str) -> list[int]:
        found = {q["handle"]: q["packets"] for q in qdiscs(lab.router, device)}
        return [found[handle] for handle in ("6002:", "6003:", "6004:")]

    server, count = SERVERS[family][0], 40
    level, option = (
        (socket.IPPROTO_IP, socket.IP_TOS) if family is Family.V4 else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    )
    af = socket.AF_INET if family is Family.V4 else socket.AF_INET6
    for band, dscp in ((0, 46), (1, 0), (2, 8)):
        with (
            closing(lab.client.socket(af, socket.SOCK_DGRAM)) as there,
            closing(lab.server.socket(af, socket.SOCK_DGRAM)) as here,
        ):
            here.bind((str(server), FIRST_PORT))
            for sock in (there, here):
                sock.settimeout(5.0)
                sock.setsockopt(level, option, dscp << 2)
            before = packets("wan1"), packets("pw-ifb1")
            for _ in range(count):
                there.sendto(b"ask", (str(server), FIRST_PORT))
                _, back = here.recvfrom(100)
                here.sendto(b"answer", back)
                there.recv(100)
            after = packets("wan1"), packets("pw-ifb1")
        for direction in range(2):
            grown = [b - a for a, b in zip(before[direction], after[direction], strict=True)]
            assert grown[band] >= count, (band, direction, grown)
            assert grown[0 if band else 2] < count, (band, direction, grown)


def test_a_device_that_is_made_anew_is_shaped_again(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2, trunk=True)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit"), (1, 2)))
    assert is_shaped(lab, 1)
    assert is_shaped(lab, 2)

    async def story() -> None:
        for _ in range(3):
            began = time.monotonic()
            lab.router.ip(recipe.remake(lab.topology.uplink(1)))
            assert await until(lambda: is_shaped(lab, 1)) - began < REPAIRED
        await until(lambda: daemon.uplink(1).state == "up", 30.0)

    with_servers(lab, story)
    assert is_shaped(lab, 2)
    assert not [line.text for line in daemon.log if "drift.repaired" in line.text]


def test_what_a_script_puts_at_a_new_device_stays(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2, trunk=True)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")), may_complain=True)
    put = 0

    async def story() -> None:
        nonlocal put
        for _ in range(4):
            await until(lambda: is_shaped(lab))
            lab.router.ip(recipe.remake(lab.topology.uplink(1)))
            if lab.router.run(["tc", "qdisc", "add", "dev", "wan1", "clsact"], check=False).returncode:
                continue  # polywan was first
            put += 1
            await until(lambda: "another program's clsact is there" in "\n".join(daemon.status().warnings))
            assert ("clsact", "ffff:") in kinds(lab.router, "wan1")
            lab.router.run(["tc", "qdisc", "del", "dev", "wan1", "clsact"])

    with_servers(lab, story)
    assert put


TAMPERINGS: Final = {
    "the root is deleted": "tc qdisc del dev wan1 root",
    "the ingress is deleted": "tc qdisc del dev wan1 ingress",
    "the filter is deleted": "tc filter del block {block}",
    "the ifb is deleted": "ip link del pw-ifb1",
    "the ifb is set down": "ip link set pw-ifb1 down",
    "the queue of the ifb is another": "tc qdisc replace dev pw-ifb1 root fq_codel",
    "the rate is another": "tc qdisc change dev wan1 root handle 6000: cake bandwidth 1gbit",
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_another_program_breaks_is_repaired(lab_of: BuildLab, start_daemon: StartDaemon, tampering: str) -> None:
    lab = lab_of(1)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")))
    before = [{k: v for k, v in q.items() if k == "options"} for q in qdiscs(lab.router, "wan1")]
    index = json.loads(lab.router.run(["ip", "-j", "link", "show", "dev", "wan1"]).stdout)[0]["ifindex"]
    command = TAMPERINGS[tampering].format(block=0x6000_0000 + index)

    async def story() -> None:
        since = len(daemon.log)
        lab.router.run(command.split())
        repaired = await asyncio.to_thread(daemon.wait_log, lambda text: "drift.repaired" in text, REPAIRED, since)
        assert repaired is not None
        await until(lambda: is_shaped(lab))
        assert [{k: v for k, v in q.items() if k == "options"} for q in qdiscs(lab.router, "wan1")] == before
        assert "UP" in lab.router.run(["ip", "link", "show", "dev", "pw-ifb1"]).stdout.partition("mtu")[0]
        with closing(await open_connections(lab, 2, SERVERS[Family.V4][0])) as opened:
            assert len(opened.connections) == 2

    with_servers(lab, story)


def test_what_others_have_there_stays_and_is_named(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(2)
    for words in ("wan1 root handle 77: fq_codel", "wan2 clsact"):
        lab.router.run(["tc", "qdisc", "add", "dev", *words.split()])
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit"), (1, 2)), may_complain=True)
    assert root_of(lab.router, "wan1") == ("fq_codel", "77:")
    assert leads_to(lab, "wan1") == "pw-ifb1"
    assert root_of(lab.router, "wan2") == ("cake", ROOT)
    assert ("clsact", "ffff:") in kinds(lab.router, "wan2")
    warnings = "\n".join(daemon.status().warnings)
    assert "uplink u1: what leaves by wan1 is not shaped: another program's fq_codel 77: is there" in warnings.replace(
        lab.topology.uplink(1).name, "u1"
    )
    assert "what comes in by wan2 is not shaped: another program's clsact is there" in warnings
    assert "what leaves by wan1 is not shaped" in planned(lab, daemon).stderr
    assert [(q.direction, q.active) for q in daemon.uplink(1).shaping] == [("down", True), ("up", False)]
    # What gives way makes room.
    lab.router.run(["tc", "qdisc", "del", "dev", "wan1", "root"])
    lab.router.run(["tc", "qdisc", "del", "dev", "wan2", "clsact"])
    wait_for(lambda: is_shaped(lab, 1) and is_shaped(lab, 2), REPAIRED)
    assert not [line.text for line in daemon.log if "drift.repaired" in line.text]
    # And what comes is not fought.
    lab.router.run(["tc", "qdisc", "replace", "dev", "wan1", "root", "handle", "78:", "fq_codel"])
    wait_for(lambda: "fq_codel 78:" in "\n".join(daemon.status().warnings), REPAIRED)
    assert root_of(lab.router, "wan1") == ("fq_codel", "78:")


def test_a_plan_for_another_file_leaves_the_daemon_hearing(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(1)
    file = configuration(lab, bandwidth("6Mbit", "2Mbit"))
    daemon = start_daemon(lab, file)
    daemon.config.write_text(configuration(lab, ""))
    assert "- qdisc dev wan1 root handle 6000:" in planned(lab, daemon).stdout
    daemon.config.write_text(file)

    async def story() -> None:
        since = len(daemon.log)
        lab.router.run(["tc", "qdisc", "del", "dev", "wan1", "root"])
        repaired = await asyncio.to_thread(daemon.wait_log, lambda text: "drift.repaired" in text, REPAIRED, since)
        assert repaired is not None
        await until(lambda: is_shaped(lab))

    with_servers(lab, story)


def test_a_device_that_others_have_taken_over_is_left_and_named(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(1)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")), may_complain=True)
    # Its alias may be anything.
    lab.router.run(["ip", "link", "set", "pw-ifb1", "alias", "mine"])
    assert is_shaped(lab)
    lab.router.run(["ip", "link", "set", "pw-ifb1", "group", "default"])
    wait_for(lambda: "another program's device pw-ifb1 is there" in "\n".join(daemon.status().warnings), REPAIRED)
    wait_for(lambda: leads_to(lab, "wan1") == "", REPAIRED)
    assert [(q.direction, q.active) for q in daemon.uplink(1).shaping] == [("down", False), ("up", True)]
    assert lab.router.run(["ping", "-c", "1", "-W", "2", "-I", "wan1", "100.64.1.1"], check=False).returncode == 0
    lab.router.run(["ip", "link", "del", "pw-ifb1"])
    wait_for(lambda: is_shaped(lab), REPAIRED)
    assert not [line.text for line in daemon.log if "apply.refused" in line.text]


@pytest.mark.parametrize("handle", ["6000:", "6005:"])
def test_a_handle_like_ours_at_a_device_of_others_is_not_fought(
    lab_of: BuildLab, start_daemon: StartDaemon, handle: str
) -> None:
    lab = lab_of(1)
    lab.router.run(["tc", "qdisc", "add", "dev", "lan0", "root", "handle", handle, "fq_codel"])
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")))
    assert is_shaped(lab)
    assert root_of(lab.router, "lan0") == ("fq_codel", handle)
    assert planned(lab, daemon).stdout.strip() == "nothing to change"
    assert daemon.down().failed == ()
    assert root_of(lab.router, "lan0") == ("fq_codel", handle)
    assert not [line.text for line in daemon.log if "drift.repaired" in line.text or "state.unreadable" in line.text]


GUARD: Final = """
table netdev guard {
    chain filter {
        type filter hook ingress device "wan1" priority 0;
        meta l4proto { icmp, icmpv6 } counter drop
    }
}
"""


@pytest.mark.parametrize("first", ["the chain", "the daemon"])
def test_a_filter_of_others_at_the_device_keeps_seeing_what_comes_in(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor, first: str
) -> None:
    lab = lab_of(1)
    if first == "the chain":
        lab.router.nft(GUARD)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")), may_complain=True)
    if first == "the daemon":
        assert is_shaped(lab)
        lab.router.nft(GUARD)

    def warned() -> bool:
        return "another program's chain filter of table netdev guard" in "\n".join(daemon.status().warnings)

    def dropped() -> int:
        return int(lab.router.run(["nft", "list", "ruleset", "netdev"]).stdout.partition("packets ")[2].split()[0])

    wait_for(lambda: warned() and leads_to(lab, "wan1") == "", REPAIRED)
    assert root_of(lab.router, "wan1") == ("cake", ROOT)
    assert "pw-ifb1" not in lab.router.run(["ip", "link"]).stdout
    before = dropped()
    assert lab.router.run(["ping", "-c", "2", "-W", "1", "-I", "wan1", "100.64.1.1"], check=False).returncode != 0
    after = dropped()
    assert after >= before + 2
    lab.router.run(["nft", "delete", "table", "netdev", "guard"])
    wait_for(lambda: is_shaped(lab), REPAIRED)
    assert not warned()
    assert not [line.text for line in daemon.log if "drift.repaired" in line.text]


def test_down_leaves_what_was_there_before(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(2)
    lab.router.run(["tc", "qdisc", "add", "dev", "wan2", "root", "handle", "77:", "fq_codel"])
    shown = ["tc", "qdisc", "show"], ["ip", "-br", "link"]
    before = [lab.router.run(words).stdout for words in shown]
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit", "prio"), (1, 2)), may_complain=True)
    assert is_shaped(lab, 1, "htb")
    assert planned(lab, daemon).stdout.strip() == "nothing to change"
    assert daemon.down().failed == ()
    assert [lab.router.run(words).stdout for words in shown] == before


def test_queues_outlive_the_daemon_and_the_next_one_adopts_them(
    lab_of: BuildLab, start_daemon: StartDaemon, wait_for: WaitFor
) -> None:
    lab = lab_of(1)
    before = lab.router.run(["tc", "qdisc", "show"]).stdout
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit", "fq_codel")))

    def sent() -> int:
        return int(qdiscs(lab.router, "wan1")[0]["bytes"])

    wait_for(lambda: sent() > 500)
    daemon.kill()
    assert is_shaped(lab, kind="htb")
    since, counted = len(daemon.log), sent()
    daemon.start()
    assert planned(lab, daemon).stdout.strip() == "nothing to change"
    assert sent() >= counted
    assert not [line.text for line in daemon.log[since:] if "applied" in line.text]
    daemon.kill()
    # Without a daemon, too, `down` knows what is ours.
    words = ["down", "--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state)]
    assert lab.router.run([sys.executable, "-m", "polywan", *words]).returncode == 0
    assert lab.router.run(["tc", "qdisc", "show"]).stdout == before
    assert "pw-ifb" not in lab.router.run(["ip", "link"]).stdout


def test_a_reload_changes_only_what_it_has_to(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(1)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")))

    def sent() -> int:
        return int(qdiscs(lab.router, "wan1")[0]["bytes"])

    async def story() -> None:
        await until(lambda: sent() > 500)
        daemon.config.write_text(configuration(lab, bandwidth("6Mbit", "4Mbit")))
        daemon.reload()
        await until(lambda: "bandwidth 3800Kbit" in lab.router.run(["tc", "qdisc", "show", "dev", "wan1"]).stdout)
        # The same queue, with what it has counted.
        assert sent() > 500
        daemon.config.write_text(configuration(lab, bandwidth("6Mbit", "4Mbit", "fq_codel")))
        daemon.reload()
        await until(lambda: is_shaped(lab, kind="htb"))
        daemon.config.write_text(configuration(lab, ""))
        daemon.reload()
        await until(lambda: root_of(lab.router, "wan1")[0] == "noqueue")
        assert kinds(lab.router, "pw-ifb1") == []
        assert leads_to(lab, "wan1") == ""

    with_servers(lab, story)
    assert not [line.text for line in daemon.log if "drift.repaired" in line.text]


@pytest.mark.needs("flowtable")
def test_the_fast_path_passes_the_queues(lab_of: BuildLab, start_daemon: StartDaemon) -> None:
    lab = lab_of(1)
    lab.router.nft(COUNTING)
    daemon = start_daemon(lab, configuration(lab, bandwidth("6Mbit", "2Mbit")))

    async def story() -> None:
        loads: dict[Load, tuple[str, int]] = {"udp up": ("wan1", 2_000_000), "udp down": ("lan0", 6_000_000)}
        with closing(await open_connections(lab, 2, SERVERS[Family.V4][0])) as opened:
            async with asyncio.timeout(10.0):
                while " fast" not in (await asyncio.to_thread(polywan, daemon, "flows")).stdout:
                    for connection in opened.connections:
                        assert "hello" in await connection.ask("hello")
            for load, (device, wanted) in loads.items():
                async with loaded(lab, load, [1], wanted):
                    await asyncio.sleep(0.5)
                    part = await rate(lab.router, device, 2.0) / wanted
                    assert 0.5 < part < 1.15, load
            queued, seen = qdiscs(lab.router, "wan1")[0]["packets"], lab.router.counters("inet counting")
            for connection in opened.connections:
                for _ in range(30):
                    assert "x" * 3000 in await connection.ask("x" * 3000)
            # What goes out meets no rule, and the queue. What comes in by an ifb device takes the slow path.
            after = lab.router.counters("inet counting")
            assert qdiscs(lab.router, "wan1")[0]["packets"] - queued >= 60
            assert after["up"] - seen["up"] < 20
            assert after["down"] - seen["down"] >= 60

    with_servers(lab, story)
