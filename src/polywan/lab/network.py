"""A lab network that stands: built from a topology, broken and mended on request, counted, taken down."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from polywan.core.net import FAMILIES, Family
from polywan.lab import recipe
from polywan.lab.namespaces import Namespace, ip_batch
from polywan.lab.sandbox import LabError
from polywan.lab.topology import LAN_CLIENT, LabUplink, Numbers, Topology, describe


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a provider counted of one uplink.

    Attributes:
        spoofed: packets whose source the provider never gave out; they were dropped.
        packets: packets that passed towards the Internet.
        opened: packets that open a connection, first tries and repetitions.
    """

    spoofed: int
    packets: int
    opened: int


class Lab:
    """A standing network; a context manager that takes it down. Methods raise `LabError` when refused."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.router = Namespace(recipe.ROUTER)
        self.client = Namespace(recipe.CLIENT)
        self.server = Namespace(recipe.SERVER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take everything down; what is gone already is no trouble."""
        names = map(Namespace, recipe.namespaces(self.topology))
        ip_batch(f"netns del {namespace.name}" for namespace in names if namespace.path.exists())

    def provider(self, number: int) -> Namespace:
        """Return the namespace of an uplink's provider."""
        return Namespace(self.topology.uplink(number).provider)

    def cut(self, number: int) -> float:
        """Take the carrier away and return the monotonic time when it was gone.

        On a trunk the router's own device goes down instead: macvlans share one carrier.
        """
        return self._set_cable(self.topology.uplink(number), up=False)

    def restore(self, number: int) -> float:
        """Bring back the carrier, and what a DHCP client would bring back; return the monotonic time."""
        uplink = self.topology.uplink(number)
        moment = self._set_cable(uplink, up=True)
        if not self.topology.trunk:
            Namespace(uplink.provider).ip(recipe.provider_cable(self.topology, uplink.provider))
        self.router.ip(recipe.bring_up(uplink))
        return moment

    def blackhole(self, number: int) -> float:
        """Lose all that crosses the provider, both ways, in silence; its gateway itself goes on answering.

        Returns:
            The monotonic time from which on everything is lost.
        """
        return self._set_hole(number, "add")

    def unblackhole(self, number: int) -> float:
        """Let everything cross again and return the monotonic time."""
        return self._set_hole(number, "delete")

    def forward_port(self, port: int, target: int) -> None:
        """Forward a TCP port of every uplink to the client, as an administrator's own nft table would."""
        hosts = [(family, LAN_CLIENT[family].ip) for family in self.topology.families]
        rules = "\n".join(
            f'iifname "wan*" tcp dport {port} dnat {"ip" if family is Family.V4 else "ip6"} to '
            f"{host if family is Family.V4 else f'[{host}]'}:{target}"
            for family, host in hosts
        )
        hook = "type nat hook prerouting priority dstnat; policy accept;"
        self.router.nft(f"table inet lab_forward {{ chain arriving {{ {hook}\n{rules}\n}}\n}}\n")

    def seen(self, number: int) -> Seen:
        """Return the provider's counts of one uplink."""
        return self.all_seen()[number]

    def all_seen(self) -> dict[int, Seen]:
        """Return the providers' counts by uplink number."""
        counts: dict[str, int] = {}
        for provider in self.topology.providers:
            counts |= Namespace(provider).counters(recipe.PROVIDER_TABLE)
        return {
            u.number: Seen(
                spoofed=counts[f"spoofed{u.number}"],
                packets=counts[f"packets{u.number}"],
                opened=counts[f"opened{u.number}"],
            )
            for u in self.topology.uplinks
        }

    def _set_cable(self, uplink: LabUplink, *, up: bool) -> float:
        if self.topology.trunk:
            return self.router.set_link(uplink.interface, up=up)
        return Namespace(uplink.provider).set_link("wan", up=up)

    def _set_hole(self, number: int, verb: str) -> float:
        uplink = self.topology.uplink(number)
        lines = [
            f"{verb} element {recipe.PROVIDER_TABLE} holes{family:d} {{ {address.allowed} }}"
            for family, address in uplink.addresses.items()
        ]
        self.provider(number).nft("\n".join(lines) + "\n")
        return time.monotonic()


def build(
    uplinks: int = 3,
    *,
    trunk: bool | None = None,
    twins: bool = False,
    families: Collection[Family] = FAMILIES,
    ipv4_only: Numbers = (),
    point_to_point: Numbers = (),
    without_default: Numbers = (),
) -> Lab:
    """Build a network; the options are those of `topology.describe`.

    Raises:
        LabError: the kernel or a tool refused; what had been built is taken down again.
    """
    return raise_network(
        describe(
            uplinks,
            trunk=trunk,
            twins=twins,
            families=families,
            ipv4_only=ipv4_only,
            point_to_point=point_to_point,
            without_default=without_default,
        )
    )


def raise_network(topology: Topology) -> Lab:
    """Build a network from its value.

    Raises:
        LabError: as `build`, or another lab stands here already.
    """
    if taken := [name for name in recipe.namespaces(topology) if Namespace(name).path.exists()]:
        raise LabError(f"another lab is running in this sandbox (namespaces {', '.join(taken)})")
    lab = Lab(topology)
    try:
        ip_batch(f"netns add {name}" for name in recipe.namespaces(topology))
        _furnish(lab)
    except BaseException:
        lab.close()
        raise
    return lab


def _furnish(lab: Lab) -> None:
    topology = lab.topology
    providers = [Namespace(name) for name in topology.providers]
    for namespace in (lab.router, lab.client, lab.server):
        namespace.sysctl(recipe.NO_DAD)
    for namespace in providers:
        namespace.sysctl(recipe.PROVIDER_SETTINGS)
    ip_batch(recipe.links(topology))
    for namespace in providers:
        namespace.ip(recipe.provider(topology, namespace.name))
        namespace.nft(recipe.provider_table(topology, namespace.name))
    lab.server.ip(recipe.server(topology))
    lab.router.ip(recipe.router(topology))
    lab.client.ip(recipe.client(topology))
