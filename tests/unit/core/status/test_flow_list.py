"""Connections as people ask for them: which, in which order, what they add up to, and how they are printed."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from click.testing import CliRunner

from polywan.api.affinity import Affinity, KeptClient
from polywan.api.codec import decode
from polywan.api.flows import Flows, Total
from polywan.api.requests import OfPolicy, WhomToForget, Words
from polywan.api.views.flow_rows import FlowRow, rows_of
from polywan.cli import affinity as affinity_verb
from polywan.cli import flows as flows_verb
from polywan.cli import group
from polywan.cli.units import duration, size
from polywan.core.errors import ControlError, KernelError
from polywan.core.net import Family
from polywan.core.resolved import resolve
from polywan.core.state.memory import Memory
from polywan.core.state.state import Known, State
from polywan.core.status.flow_list import OTHER, PROBE, FlowQuery, Totals, flow_query_of, listed
from polywan.core.world.affinity import AffinityEntry, map_of
from polywan.core.world.conntrack import Flow, stray, translated_to
from polywan.daemon.api.flows import Tracking, probes_of
from polywan.kernel.fake.tracker import Connection, FakeTracker
from support.engine_world import Engine, config, world

NAMES = {0x100: "fibre", 0x200: "lte"}


def flow(**changes: Any) -> Flow:
    plain = Flow(
        family=Family.V4,
        protocol=6,
        client="192.168.1.5",
        client_port=40000,
        destination="203.0.113.9",
        port=443,
        reply_source="203.0.113.9",
        reply_source_port=443,
        reply_destination="100.64.1.2",
        reply_destination_port=40000,
        state="ESTABLISHED",
        mark=0x100,
        age=75.5,
        timeout=432000,
        bytes_up=1200,
        bytes_down=3_400_000,
        packets_up=10,
        packets_down=2300,
    )
    return plain._replace(**changes)


MANY = [
    flow(),
    flow(mark=0x200, client="192.168.1.40", bytes_up=5, bytes_down=5, age=1.0),
    flow(mark=0x200, client="192.168.2.7", protocol=17, port=53, bytes_up=None, bytes_down=None, age=None),
    flow(mark=0, client="2001:db8::5", destination="2001:db8:9::9", family=Family.V6, protocol=58, port=None),
    flow(mark=0x300, protocol=1, port=None, client_port=None, client="10.0.0.1", age=9000.0, bytes_up=9, bytes_down=1),
]


def clients(wanted: FlowQuery, many: list[Flow] | None = None) -> list[str]:
    return [row.client for row in listed(MANY if many is None else many, wanted, NAMES, Totals([]))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, ["192.168.1.5", "192.168.1.40", "192.168.2.7", "2001:db8::5", "10.0.0.1"]),
        ({"uplink": "lte"}, ["192.168.1.40", "192.168.2.7"]),
        ({"uplink": OTHER}, ["2001:db8::5", "10.0.0.1"]),
        ({"client": "192.168.1.0/24"}, ["192.168.1.5", "192.168.1.40"]),
        ({"client": "192.168.2.7"}, ["192.168.2.7"]),
        ({"to": "2001:db8::/32"}, ["2001:db8::5"]),
        ({"port": "53"}, ["192.168.2.7"]),
        ({"proto": "udp"}, ["192.168.2.7"]),
        ({"proto": "ICMP"}, ["2001:db8::5", "10.0.0.1"]),
        ({"proto": "58"}, ["2001:db8::5"]),
        ({"proto": "tcp", "uplink": "lte"}, ["192.168.1.40"]),
        ({"limit": "2"}, ["192.168.1.5", "192.168.1.40"]),
        ({"sort": "bytes", "limit": "2"}, ["192.168.1.5", "2001:db8::5"]),
        ({"sort": "age", "limit": "2"}, ["10.0.0.1", "192.168.1.5"]),
        ({"sort": "client", "limit": "9"}, ["10.0.0.1", "192.168.1.5", "192.168.1.40", "192.168.2.7", "2001:db8::5"]),
        ({"sort": "uplink", "limit": "1"}, ["192.168.1.5"]),
        ({"limit": "0"}, []),
        ({"find": "192.168.1."}, ["192.168.1.5", "192.168.1.40"]),
        ({"find": "LTE"}, ["192.168.1.40", "192.168.2.7"]),
        ({"find": "udp"}, ["192.168.2.7"]),
        ({"find": "53", "proto": "udp"}, ["192.168.2.7"]),
        ({"find": "203.0.113.9:443", "uplink": "fibre"}, ["192.168.1.5"]),
        ({"find": "192.168.1.5:400"}, ["192.168.1.5"]),
        ({"find": "estab", "client": "192.168.1.0/24"}, ["192.168.1.5", "192.168.1.40"]),
        ({"find": "db8:9"}, ["2001:db8::5"]),
        ({"find": "nowhere"}, []),
        ({"find": ""}, ["192.168.1.5", "192.168.1.40", "192.168.2.7", "2001:db8::5", "10.0.0.1"]),
        ({"offset": "3"}, ["2001:db8::5", "10.0.0.1"]),
        ({"offset": "1", "limit": "2"}, ["192.168.1.40", "192.168.2.7"]),
        ({"offset": "9", "limit": "2"}, []),
        ({"sort": "age", "offset": "1", "limit": "1"}, ["192.168.1.5"]),
        ({"sort": "bytes", "offset": "4"}, ["192.168.2.7"]),
    ],
)  # fmt: skip
def test_only_what_was_asked_for_is_listed(words: dict[str, str], expected: list[str]) -> None:
    assert clients(flow_query_of(words)) == expected


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"client": "nobody"}, "client: expected an address or network"),
        ({"to": "1.2.3.4/33"}, "to: expected an address or network"),
        ({"port": "65536"}, "port: expected a number from 0 to 65535"),
        ({"port": "-1"}, "port: expected a number"),
        ({"port": "٣"}, "port: expected a number"),
        ({"limit": "9" * 5000}, "limit: expected a number"),
        ({"proto": "256"}, "proto: expected a number up to 255"),
        ({"proto": "tcpp"}, "or one of icmp"),
        ({"sort": "size"}, "sort: expected one of bytes, age, client, uplink"),
        ({"colour": "red"}, "unknown: colour"),
        ({"find": "x" * 101}, "find: expected at most 100 characters, got 101"),
        ({"offset": "-1"}, "offset: expected a number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_expected(words: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        flow_query_of(words)


@pytest.mark.parametrize("sort", [None, "bytes", "client"])
def test_pages_of_a_list_are_the_list_and_each_knows_how_many_there_are(sort: str | None) -> None:
    many = [flow(client=f"192.168.1.{n % 7}", client_port=n, bytes_up=n * 31 % 17) for n in range(50)]
    words = {} if sort is None else {"sort": sort}

    def page(**more: str) -> list[FlowRow]:
        totals = Totals([])
        found = [*listed(many, flow_query_of({**words, **more}), NAMES, totals)]
        assert totals.number == 50
        return found

    pages = [page(offset=str(first), limit="20") for first in (0, 20, 40, 60)]
    assert [len(each) for each in pages] == [20, 20, 10, 0]
    assert [row for each in pages for row in each] == page()


def test_the_sums_are_of_all_that_match_however_few_are_shown() -> None:
    totals = Totals(NAMES.values())
    assert list(listed(MANY, FlowQuery(limit=1), NAMES, totals))
    assert totals.rows() == (
        Total(uplink="fibre", connections=1, bytes_up=1200, bytes_down=3_400_000),
        Total(uplink="lte", connections=2, bytes_up=5, bytes_down=5),
        Total(uplink=OTHER, connections=2, bytes_up=1209, bytes_down=3_400_001),
    )


def test_bytes_that_nobody_counted_are_no_zero() -> None:
    totals = Totals(["lte"])
    assert len(list(listed(MANY[2:3], FlowQuery(), NAMES, totals))) == 1
    assert totals.rows() == (Total(uplink="lte", connections=1, bytes_up=None, bytes_down=None),)


def row(one: Flow, uplink: str = "fibre") -> FlowRow:
    return FlowRow(*one, uplink)


def line(one: Flow) -> str:
    return flows_verb.text([row(one)])[1]


def test_a_connection_is_printed_in_one_line() -> None:
    heading, first = flows_verb.text([row(flow())])
    assert heading.split() == list(flows_verb.HEADINGS)
    assert re.split(" {2,}", first) == [
        "192.168.1.5:40000", "203.0.113.9:443", "tcp", "ESTABLISHED", "fibre", "1 min", "3.4 MB", "1.2 kB",
    ]  # fmt: skip


def test_addresses_of_ipv6_with_a_port_are_in_brackets() -> None:
    shown = line(
        flow(family=Family.V6, client="2001:db8::5", destination="2001:db8:9::9", reply_source="2001:db8:9::9")
    )
    assert shown.startswith("[2001:db8::5]:40000  [2001:db8:9::9]:443  tcp")


def test_a_protocol_without_ports_shows_addresses_alone() -> None:
    shown = line(flow(protocol=99, client_port=None, port=None, reply_source_port=None))
    assert shown.startswith("192.168.1.5  203.0.113.9  99")


def test_a_translated_destination_shows_who_answers() -> None:
    assert "203.0.113.9:443 (192.168.1.80:8443)" in line(flow(reply_source="192.168.1.80", reply_source_port=8443))


def test_what_is_not_known_of_a_connection_is_a_dash() -> None:
    assert line(flow(age=None, bytes_up=None, bytes_down=None)).split()[-3:] == ["-", "-", "-"]


def test_an_empty_list_is_its_heading() -> None:
    (heading,) = flows_verb.text([])
    assert heading.split() == list(flows_verb.HEADINGS)


def test_sums_tell_when_not_all_are_shown() -> None:
    totals = [
        Total(uplink="fibre", connections=1, bytes_up=5, bytes_down=2_000_000_000),
        Total(uplink="lte", connections=2, bytes_up=None, bytes_down=None),
    ]
    assert flows_verb.sums(totals, 3).splitlines() == [
        "fibre: 1 connection, 2.0 GB down, 5 B up",
        "lte: 2 connections",
    ]
    assert flows_verb.sums(totals, 2).splitlines()[-1] == "2 of 3 connections shown"
    assert flows_verb.counts(totals).splitlines() == ["fibre  1", "lte    2"]


def test_quantities_have_units() -> None:
    assert [size(n) for n in (0, 999, 1000, 1_500_000, 2_000_000_000)] == ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB"]
    assert [duration(s) for s in (0.9, 59, 60, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def test_an_option_that_makes_no_sense_is_a_usage_error() -> None:
    done = CliRunner().invoke(group, ["flows", "--port", "http"])
    assert done.exit_code == 2
    assert "--port: expected a number" in done.output


def test_clearing_needs_an_address_or_everybody() -> None:
    for words in ([], ["192.168.1.5", "--all"]):
        done = CliRunner().invoke(group, ["affinity", "clear", *words])
        assert done.exit_code == 2
        assert "give an ADDRESS, or --all" in done.output


def kept(client: str, mark: int = 0x100, policy: str = "default", server: str | None = None) -> AffinityEntry:
    address = ip_address(client)
    return AffinityEntry(
        map=f"affinity_{address.version}_{policy}",
        family=Family(address.version),
        policy=policy,
        client=address,
        server=None if server is None else ip_address(server),
        mark=mark,
        expires=90.0,
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("affinity_4_default", (Family.V4, "default")),
        ("affinity_6_a_b-c", (Family.V6, "a_b-c")),
        ("affinity_4_banking.pairs", (Family.V4, "banking")),
        ("affinity_5_default", None),
        ("affinity_4_", None),
        ("slots_4_default", None),
    ],
)
def test_a_map_of_clients_is_known_by_its_name(name: str, found: tuple[Family, str] | None) -> None:
    assert map_of(name) == found


def test_clients_are_printed_in_one_line_each() -> None:
    servers = (None, "203.0.113.9")
    kept = [KeptClient(client="192.168.1.5", server=s, policy="default", uplink="lte", expires_s=90) for s in servers]
    lines = affinity_verb.text(kept).splitlines()
    assert lines[0].split() == list(affinity_verb.HEADINGS)
    assert lines[1].split() == ["192.168.1.5", "any", "default", "lte", "1", "min"]
    assert "203.0.113.9" in lines[2]


def state() -> State:
    configuration = config(2, policies={"banking": {"tiers": [["u1"], ["u2"]]}})
    memory = Memory(ids={"u1": 1, "u2": 2})
    return State(known=Known(config=resolve(configuration, memory.ids), memory=memory))


def tracking(tracker: FakeTracker) -> Tracking:
    return Tracking(tracker, state)


def flows_of(tracker: FakeTracker, **words: str) -> Flows:
    return decode(Flows, json.loads(b"".join(flow_pieces(tracker, **words))))


def flow_pieces(tracker: FakeTracker, **words: str) -> list[bytes]:
    async def collected() -> list[bytes]:
        pieces = (await tracking(tracker).flows(Words(words=words))).pieces
        return pieces if isinstance(pieces, list) else [piece async for piece in pieces]

    return asyncio.run(collected())


def affinity_of(tracker: FakeTracker, policy: str | None) -> Affinity:
    pieces = asyncio.run(tracking(tracker).affinity(OfPolicy(policy=policy))).pieces
    assert isinstance(pieces, list)
    return decode(Affinity, json.loads(b"".join(pieces)))


def test_the_document_names_columns_uplinks_and_sums() -> None:
    tracker = FakeTracker()
    tracker.connections_list = [Connection(mark=0x80000200 if n % 2 else 0, client_port=n) for n in range(1, 1001)]
    document = flows_of(tracker)
    assert document.columns == (*Flow._fields, "uplink")
    assert len(document.flows) == 1000
    assert [one.uplink for one in rows_of(document)[:2]] == ["u2", OTHER]
    assert {t.uplink: t.connections for t in document.totals} == {"u1": 0, "u2": 500, OTHER: 500}
    assert document.total == 1000


def test_a_page_far_behind_is_sorted_by_nobody() -> None:
    with pytest.raises(ControlError, match="sort: needs a limit of at most 5000, together with the offset"):
        flows_of(FakeTracker(), sort="bytes", limit="10", offset="4991")


class Failing(FakeTracker):
    """A kernel that refuses after so many connections."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def flows(self, mask: int, mark: int | None = None) -> Iterator[Flow]:
        """Yield some connections, then fail."""
        yield from (flow(mark=mark or 0) for _ in range(self.after))
        raise KernelError("dump", 105, f"no buffer space {mask:#x}")


def test_a_kernel_that_refuses_at_once_is_a_refusal() -> None:
    with pytest.raises(KernelError, match="no buffer space"):
        flow_pieces(Failing(0))


def test_a_kernel_that_refuses_later_is_told_behind_the_rows() -> None:
    document = json.loads(b"".join(flow_pieces(Failing(5000))))
    assert len(document["flows"]) > 1000
    assert "no buffer space" in document["error"]
    assert "totals" not in document


def test_connections_are_sent_before_the_last_one_was_read() -> None:
    tracker, read = FakeTracker(), threading.Event()

    def held(mask: int, mark: int | None = None) -> Iterator[Flow]:
        yield from (flow(mark=mask & (mark or 0)) for _ in range(5000))
        assert read.wait(10.0)

    tracker.flows = held  # type: ignore[method-assign]  # one connection after another, as the kernel gives them

    async def story() -> list[bytes]:
        pieces = (await tracking(tracker).flows(Words(words={}))).pieces
        assert not isinstance(pieces, list)
        first = await anext(pieces)
        read.set()
        return [first, *[piece async for piece in pieces]]

    assert len(json.loads(b"".join(asyncio.run(story())))["flows"]) == 5000


def test_an_empty_document_is_json_too() -> None:
    document = flows_of(FakeTracker(), uplink="u1")
    assert rows_of(document) == []
    assert [t.uplink for t in document.totals] == ["u1"]


def test_an_uplink_that_does_not_exist_is_refused_with_a_hint() -> None:
    with pytest.raises(ControlError, match=r'no uplink "u3"; .*u[12]') as refused:
        flows_of(FakeTracker(), uplink="u3")
    assert refused.value.status == 404


@pytest.mark.parametrize("limit", [None, 5001])
def test_the_daemon_sorts_no_list_that_would_keep_it_from_its_work(limit: int | None) -> None:
    with pytest.raises(ControlError, match="needs a limit of at most 5000"):
        flows_of(FakeTracker(), sort="bytes", **({} if limit is None else {"limit": str(limit)}))


def test_clients_are_told_with_the_uplinks_name() -> None:
    tracker = FakeTracker()
    tracker.kept_list = [kept("192.168.1.5", 0x200), kept("192.168.1.4"), kept("192.168.1.4", 0x900, "banking")]
    clients = affinity_of(tracker, None).clients
    assert [(c.policy, c.client, c.uplink) for c in clients] == [
        ("banking", "192.168.1.4", OTHER),
        ("default", "192.168.1.4", "u1"),
        ("default", "192.168.1.5", "u2"),
    ]
    only = affinity_of(tracker, "banking").clients
    assert [c.client for c in only] == ["192.168.1.4"]
    assert only[0].expires_s == 90.0


def whom(address: str | None, policy: str | None) -> WhomToForget:
    return WhomToForget(address=address, all="true" if address is None else None, policy=policy)


@pytest.mark.parametrize(
    ("address", "policy", "remaining"),
    [
        (None, None, []),
        ("192.168.1.5", None, ["192.168.1.6", "192.168.1.6", "2001:db8::5"]),
        ("192.168.1.0/24", "banking", ["192.168.1.5", "192.168.1.6", "2001:db8::5"]),
        ("2001:db8::/64", None, ["192.168.1.5", "192.168.1.6", "192.168.1.6"]),
        ("10.9.9.9", None, ["192.168.1.5", "192.168.1.6", "192.168.1.6", "2001:db8::5"]),
    ],
)
def test_clearing_forgets_an_address_a_network_or_everybody(
    address: str | None, policy: str | None, remaining: list[str]
) -> None:
    tracker = FakeTracker()
    tracker.kept_list = [
        kept("192.168.1.5"), kept("192.168.1.6"), kept("192.168.1.6", policy="banking"), kept("2001:db8::5"),
    ]  # fmt: skip
    done = asyncio.run(tracking(tracker).clear(whom(address, policy)))
    assert sorted(str(k.client) for k in tracker.kept_list) == remaining
    assert done.forgotten == 4 - len(remaining)


@pytest.mark.parametrize(("address", "policy", "status"), [("nobody", None, 400), (None, "none", 404)])
def test_clearing_what_makes_no_sense_is_refused(address: str | None, policy: str | None, status: int) -> None:
    with pytest.raises(ControlError) as refused:
        asyncio.run(tracking(FakeTracker()).clear(whom(address, policy)))
    assert refused.value.status == status


def test_what_was_translated_to_an_address_is_told_from_what_has_it_itself() -> None:
    assert translated_to(flow(), {"100.64.1.2"})
    assert not translated_to(flow(), {"100.64.2.2"})
    assert not translated_to(flow(client="100.64.1.2"), {"100.64.1.2"})


def test_a_stray_has_no_answer_and_no_translation() -> None:
    lost = flow(protocol=17, reply_destination="192.168.1.5", state="UNREPLIED", packets_down=None)
    assert stray(1.0, lost)
    assert stray(1.0, lost._replace(protocol=6, state="SYN_SENT"))
    assert not stray(1.0, lost._replace(protocol=6, state="ESTABLISHED"))
    assert not stray(1.0, lost._replace(protocol=6, state="ESTABLISHED", packets_down=1))
    assert stray(1.0, lost._replace(protocol=6, state="ESTABLISHED", packets_down=0))
    assert not stray(1.0, lost._replace(state="ASSURED"))
    assert stray(1.0, lost._replace(mark=0x100))
    assert not stray(1.0, lost._replace(reply_destination="100.64.1.2"))
    assert not stray(1.0, lost._replace(reply_destination_port=1024))
    assert not stray(1.0, lost._replace(reply_source="192.168.1.9"))
    assert stray(1.0, lost._replace(protocol=6, state="SYN_RECV", reply_source="192.168.1.9"))


@pytest.mark.parametrize(("age", "doomed"), [(None, True), (5.0, True), (1.0, True), (0.9995, True), (0.99, False)])
def test_what_began_under_the_rule_set_is_no_stray(age: float | None, doomed: bool) -> None:
    lost = flow(protocol=17, reply_destination="192.168.1.5", state="UNREPLIED", packets_down=None, age=age)
    assert stray(1.0, lost) is doomed
    assert stray(1.0, lost._replace(protocol=6, state="SYN_RECV")) is doomed


def test_the_daemons_own_probes_are_called_that() -> None:
    pairs = probes_of(Engine(config(2), world(2)).state)
    assert ("100.64.1.2", "1.1.1.1") in pairs
    assert ("100.64.2.2", "100.64.2.1") in pairs
    assert ("100.64.1.2", "100.64.2.1") not in pairs
    asked = [
        flow(client="100.64.1.2", destination="1.1.1.1", mark=0),
        flow(client="192.168.1.2", destination="1.1.1.1", mark=0),
        flow(client="100.64.1.2", destination="1.1.1.1", mark=0x100),
    ]
    rows = list(listed(asked, FlowQuery(), {0x100: "fibre"}, Totals(()), pairs))
    assert [row[-1] for row in rows] == [PROBE, OTHER, "fibre"]


@pytest.mark.parametrize(
    "rows",
    [
        [row(flow())],
        [row(flow(port=None, client_port=None, age=None, state="")), row(flow(age=0.1 + 0.2))],
        [row(flow(client="2001:db8::1", destination="2001:db8:1::2", bytes_up=2**63)), row(flow(), uplink="lte-2.x")],
        [row(flow(), uplink='a "quoted" \\ name'), row(flow())],
        [],
    ],
    ids=["plain", "nothing known", "IPv6", "odd names", "none"],
)
def test_connections_as_json_are_what_the_json_library_writes(rows: list[FlowRow]) -> None:
    sent = [one._replace(family=int(one.family)) for one in rows]
    assert [*flows_verb.objects(sent)] == [json.dumps(one._asdict()) for one in sent]
    assert [*flows_verb.objects(rows)] == [json.dumps(one._asdict()) for one in rows]
