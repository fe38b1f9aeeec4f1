"""Which client a connection's bytes are of, and that each is counted once."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from polywan.core.measurements import clients
from polywan.core.measurements.clients import OTHERS, THIS_MACHINE, ClientCounter, Surroundings, added, client_of
from polywan.core.net import Family
from polywan.core.status.tally import Bytes
from polywan.core.world.conntrack import Flow

AROUND = Surroundings(
    own=frozenset({"192.0.2.2", "10.0.0.1", "2001:db8:1::1"}),
    lans=[ip_network("10.0.0.0/24"), ip_network("2001:db8:1::/64")],
    marks={1: "fibre"},
)


def flow(client: str, destination: str, up: int = 0, down: int = 0, **more: Any) -> Flow:
    one = Flow(Family.V4, 6, client, 1000, destination, 443, bytes_up=up, bytes_down=down, mark=1)
    return one._replace(**{"reply_source": destination, "reply_destination": client, **more})


def test_the_client_is_the_end_on_this_side_of_the_uplink() -> None:
    masqueraded = flow("10.0.0.7", "203.0.113.1", reply_destination="192.0.2.2")
    assert client_of(masqueraded, AROUND) == ("10.0.0.7", True)
    assert client_of(flow("172.16.3.4", "203.0.113.1", reply_destination="192.0.2.2"), AROUND) == ("172.16.3.4", True)
    assert client_of(flow("192.0.2.2", "203.0.113.1"), AROUND) == (THIS_MACHINE, True)
    assert client_of(flow("203.0.113.1", "192.0.2.2", reply_source="10.0.0.8"), AROUND) == ("10.0.0.8", False)
    assert client_of(flow("203.0.113.1", "192.0.2.2"), AROUND) == (THIS_MACHINE, False)


def test_without_translation_the_client_is_the_end_in_our_networks() -> None:
    assert client_of(flow("2001:db8:1::7", "2001:db8:9::1"), AROUND) == ("2001:db8:1::7", True)
    assert client_of(flow("2001:db8:9::1", "2001:db8:1::7"), AROUND) == ("2001:db8:1::7", False)


def test_only_what_came_since_the_look_before_is_counted() -> None:
    counter = ClientCounter()
    assert counter.look([flow("10.0.0.7", "203.0.113.1", 900, 9000, age=500.0)], AROUND, 10.0) == {}
    found = counter.look(
        [flow("10.0.0.7", "203.0.113.1", 1000, 9500), flow("10.0.0.8", "203.0.113.1", 5, 7)], AROUND, 70
    )
    assert found == {"10.0.0.7": Bytes(500, 100), "10.0.0.8": Bytes(7, 5)}
    assert counter.connections == {"fibre": 2}
    # Another connection between the same ends has begun meanwhile.
    assert counter.look([flow("10.0.0.7", "203.0.113.1", 30, 40)], AROUND, 130) == {"10.0.0.7": Bytes(40, 30)}


def test_connections_that_began_after_the_daemon_are_counted_at_the_first_look() -> None:
    assert ClientCounter().look([flow("10.0.0.7", "203.0.113.1", 1, 2, age=3.0)], AROUND, 10.0) == {
        "10.0.0.7": Bytes(2, 1)
    }


def test_connections_of_nobodys_uplink_are_no_clients_of_an_uplink() -> None:
    counter = ClientCounter(known={})
    assert counter.look([flow("10.0.0.7", "203.0.113.1", 1, 2, mark=0)], AROUND, 10.0) == {}


def test_connections_beyond_the_bound_are_told(monkeypatch: object) -> None:
    flows = [flow("10.0.0.7", "203.0.113.1", 1, 1, client_port=port) for port in range(5)]
    counter, most = ClientCounter(known={}), clients.MOST_COUNTED
    try:
        clients.MOST_COUNTED = 3  # type: ignore[misc]  # a smaller bound than any machine needs
        counter.look(flows, AROUND, 10.0)
    finally:
        clients.MOST_COUNTED = most  # type: ignore[misc]  # as above
    assert (counter.beyond, counter.connections) == (2, {"fibre": 5})


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 100)), max_size=40), st.integers(1, 5))
def test_clients_that_are_too_many_are_others_and_no_byte_is_lost(story: list[tuple[str, int]], most: int) -> None:
    sums: dict[str, Bytes] = {}
    for client, moved in story:
        sums = added(sums, {client: Bytes(moved, 0)}, most)
        assert len(sums) <= most
    assert sum(one.rx for one in sums.values()) == sum(moved for _, moved in story)


def test_those_with_most_bytes_keep_their_row() -> None:
    sums = {"a": Bytes(10, 0), "b": Bytes(2, 0), OTHERS: Bytes(50, 0)}
    assert added(sums, {"c": Bytes(5, 5)}, 3) == {"a": Bytes(10, 0), "c": Bytes(5, 5), OTHERS: Bytes(52, 0)}
