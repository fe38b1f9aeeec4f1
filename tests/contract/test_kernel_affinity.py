"""What every kernel keeps of clients: which uplink is theirs, and letting go of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address

import pytest

from contract.entries import Entry
from contract.kernels import World, events_of
from contract.values import MASK
from polywan.core.net import FAMILIES, Family
from polywan.core.state.events import OwnStateChanged
from polywan.core.world.affinity import AffinityEntry


def kept(
    host: int, mark: int = 0x100, *, family: Family = Family.V4, policy: str = "default", pair: bool = False
) -> AffinityEntry:
    prefix = "192.168.1." if family is Family.V4 else "2001:db8:1::"
    return AffinityEntry(
        map=f"affinity_{family}_{policy}{'.pairs' if pair else ''}",
        family=family,
        policy=policy,
        client=ip_address(f"{prefix}{host}"),
        server=ip_address("203.0.113.9" if family is Family.V4 else "2001:db8:9::9") if pair else None,
        mark=mark,
        expires=600.0,
    )


def timeless(clients: Sequence[AffinityEntry]) -> set[AffinityEntry]:
    return {replace(client, expires=0.0) for client in clients}


@pytest.mark.parametrize("family", FAMILIES)
def test_clients_are_read_with_policy_and_mark(world: World, family: Family) -> None:
    entries = [kept(5, family=family), kept(6, 0x200, family=family), kept(5, 0x200, family=family, policy="two_2-x")]
    world.keep(entries)
    assert timeless(world.kernel.affinities()) == timeless(entries)


def test_clients_are_read_with_the_server_that_they_are_kept_for(world: World) -> None:
    world.keep([kept(5, pair=True)])
    assert timeless(world.kernel.affinities()) == timeless([kept(5, pair=True)])


def test_clients_are_read_with_the_time_that_is_left(world: World) -> None:
    world.keep([kept(5)])
    (client,) = world.kernel.affinities()
    assert 590 < client.expires <= 600


def test_without_a_table_nobody_is_kept(world: World) -> None:
    assert world.kernel.affinities() == []
    assert world.kernel.forget([kept(5)]) == 0


@pytest.mark.parametrize("pair", [False, True])
def test_only_the_clients_that_were_named_are_forgotten(world: World, pair: bool) -> None:
    world.keep([kept(5, pair=pair), kept(6, pair=pair)])
    assert world.kernel.forget([kept(5, pair=pair)]) == 1
    assert timeless(world.kernel.affinities()) == timeless([kept(6, pair=pair)])


def test_a_client_that_is_gone_already_does_not_save_the_others(world: World) -> None:
    world.keep([kept(host) for host in range(1, 100)])
    assert world.kernel.forget([kept(7), kept(70)]) == 2
    assert world.kernel.forget([kept(host) for host in range(1, 100)]) == 97
    assert world.kernel.affinities() == []


def test_thousands_are_forgotten(world: World) -> None:
    many = [replace(kept(1), client=ip_address(f"10.0.{n >> 8}.{n & 255}")) for n in range(3000)]
    world.keep(many)
    assert world.kernel.forget(world.kernel.affinities()) == 3000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_forgets_the_clients_of_its_mark_and_family_without_counting_them(world: World, family: Family) -> None:
    other = next(f for f in FAMILIES if f is not family)
    stays = [kept(6, 0x200, family=family), kept(5, family=other)]
    world.keep([kept(5, family=family), kept(7, family=family, policy="other"), *stays])
    world.track([Entry(mark=0x100, family=family)])
    assert world.kernel.cut(0x100, MASK, family).forgotten == 1
    assert timeless(world.kernel.affinities()) == timeless(stays)


def test_forgetting_is_not_reported_as_somebody_elses_doing(world: World) -> None:
    world.keep([kept(5)])
    events = events_of(world, lambda: world.kernel.forget([kept(5)]))
    assert [event for event in events if isinstance(event, OwnStateChanged)] == []
