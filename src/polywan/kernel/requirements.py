"""What polywan needs of a machine, checked one by one; every answer names what brings the missing part."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from polywan.core.errors import KernelError, MissingFeature
from polywan.core.net import FAMILIES, Family
from polywan.core.ruleset.model import HELD, Chain, Hook, Key, NftFlowtable, NftRule, NftTable, held_texts
from polywan.core.ruleset.policies import KEY_CHECK, keys_swapped
from polywan.kernel import sysctl
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.netlink import nexthops as nh
from polywan.kernel.netlink import policy_rules
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import NetlinkSocket
from polywan.kernel.nft.libnftables import Nftables
from polywan.kernel.nft.reader import verdicts

_CAP_NET_ADMIN: Final = 12
_CHECK_TABLE: Final = "inet polywan_requirements_check"

_PREROUTING: Final = "type filter hook prerouting priority -150;"
_POSTROUTING: Final = "type filter hook postrouting priority -150;"
_INPUT: Final = "type filter hook input priority 0;"
_OUTPUT: Final = "type filter hook output priority -300;"
_SRCNAT: Final = "type nat hook postrouting priority 100;"

# In the hooks that the table uses: reject, for one, is allowed in prerouting since Linux 5.9 only.
_EXPRESSIONS: Final = (
    (_PREROUTING, "accept", "nftables for IPv4 and IPv6 together", "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET"),
    (_PREROUTING, "numgen inc mod 2 vmap { 0 : accept, 1 : drop }", "nftables numgen", "CONFIG_NFT_NUMGEN"),
    (_PREROUTING, 'fib daddr . mark oifname "lo" accept', "nftables fib", "CONFIG_NFT_FIB_INET"),
    (
        _PREROUTING,
        "ct mark set ct mark & 0x000000ff",
        "nftables connection marks",
        "CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_MARK",
    ),
    (_OUTPUT, "notrack", "nftables exemption from connection tracking", "CONFIG_NFT_CT"),
    (_POSTROUTING, "tcp option maxseg size set rt mtu", "nftables segment size clamping", "CONFIG_NF_TABLES"),
    (
        _INPUT,
        "socket wildcard 1 accept",
        "nftables socket, with whether it is bound to an address",
        "CONFIG_NFT_SOCKET, Linux 5.10",
    ),
    (_SRCNAT, "masquerade", "nftables masquerade", "CONFIG_NFT_MASQ"),
    (_PREROUTING, "reject with icmpx type no-route", "nftables reject before routing", "CONFIG_NFT_REJECT_INET"),
)
_POLICY_RULES: Final = {Family.V4: "CONFIG_IP_MULTIPLE_TABLES", Family.V6: "CONFIG_IPV6_MULTIPLE_TABLES"}


def missing(netlink: NetlinkSocket, nft: Nftables, *, multipath: bool = False) -> list[str]:
    """Return what the machine lacks, one line each; with `multipath`, what that algorithm needs is asked for too.

    Raises:
        KernelError: a check failed in a way that does not tell.
    """
    if not has_net_admin():
        return ["CAP_NET_ADMIN (run as root, for example with sudo, or start the systemd unit, which grants it)"]
    groups = _resilient_groups(netlink) if multipath else ()
    return [*_nftables(nft), *_connection_tracking(), *_policy_rules(netlink), *groups]


def has_net_admin(status: Path = Path("/proc/thread-self/status")) -> bool:
    """True when the calling thread may change the network (capabilities(7))."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


def _nftables(nft: Nftables) -> Iterator[str]:
    lacking = False
    for hook, expression, what, options in _EXPRESSIONS:
        try:
            attempt(nft, hook, expression)
        except MissingFeature as e:
            yield str(e)
            return
        except KernelError as e:
            lacking = True
            yield f"{what} (kernel option {options}): {e}"
    if not lacking:
        yield from missing_key_order(nft)


def missing_key_order(nft: Nftables) -> Iterator[str]:
    """Yield what is wrong when neither byte order of keys leads to what the kernel looks up."""
    try:
        found = stored_keys(nft)
    except KernelError as e:
        yield f"nftables maps from numbers to chains: {e}"
        return
    if keys_swapped(found) is None:
        keys = " and ".join(map(str, found)) or "nothing"
        yield (
            "a version of libnftables that stores slots as the kernel looks them up "
            f"(for 1 and {1 << 24}, the installed one stores {keys}: "
            "every new connection would take the first uplink; install another version: 1.0.6, 1.1.3 and 1.1.7 work)"
        )


def stored_keys(nft: Nftables) -> dict[Key, str]:
    """Return what the kernel holds after `KEY_CHECK` was written; nothing of it stays.

    Raises:
        MissingFeature: libnftables is not there.
        KernelError: nft or the kernel refused, or the process may not ask.
    """
    # One transaction cannot tell. Another process may ask at the same time, so each has a table of its own.
    name = f"{_CHECK_TABLE}_{os.getpid()}"
    table = NftTable(chains={}, maps={"slots": KEY_CHECK})
    try:
        nft.run(table.render(name, HELD))
    except KernelError:  # before Linux 5.12 no table goes with its process
        nft.run(table.render(name))
    try:
        return verdicts(name, "slots")
    finally:
        with suppress(KernelError):
            nft.run(f"delete table {name}\n")


def swaps_keys(nft: Nftables) -> bool:
    """True when numbers have to be written in the other byte order; False also for who may not ask, or has no library.

    Raises:
        KernelError: nft or the kernel refused. A guess could lead all new connections to one uplink.
    """
    if not has_net_admin():
        return False
    try:
        return keys_swapped(stored_keys(nft)) is True
    except MissingFeature:
        return False
    except KernelError as e:
        if e.errno != errno.EPERM:
            raise
        return False


def has_flowtable(nft: Nftables) -> bool:
    """True when the kernel has flowtables, with counters (Linux 5.7), and tables that belong to a socket (5.12).

    False for who may not ask: libnftables would tell the terminal so by itself.
    """
    if not has_net_admin():
        return False
    chain = Chain((NftRule("flow add @flows", "check"),), Hook("filter", "forward", 300))
    table = NftTable(chains={"check": chain}, flowtables={"flows": NftFlowtable(("lo",), 10)})
    try:
        nft.run(f"{held_texts(_CHECK_TABLE, table)[0]}delete table {_CHECK_TABLE}\n")
    except (MissingFeature, KernelError):
        return False
    return True


def attempt(nft: Nftables, hook: str, expression: str) -> None:
    """Ask the kernel for one rule in a chain of that hook; nothing of it stays.

    Raises:
        MissingFeature: libnftables is not there.
        KernelError: nft or the kernel does not know the expression, or the process may not ask.
    """
    # nft's own check mode never asks the kernel; a table that goes away in the same transaction does.
    nft.run(
        f"create table {_CHECK_TABLE}\nadd chain {_CHECK_TABLE} probe {{ {hook} }}\n"
        f"add rule {_CHECK_TABLE} probe {expression}\ndelete table {_CHECK_TABLE}\n"
    )


def _connection_tracking() -> Iterator[str]:
    try:
        conntrack.reachable()
    except KernelError as e:
        yield f"connection tracking over netlink (kernel option CONFIG_NF_CT_NETLINK): {e}"


def _policy_rules(netlink: NetlinkSocket) -> Iterator[str]:
    for family in FAMILIES:
        if family is Family.V6 and not (sysctl.SYSCTL_ROOT / "net/ipv6").exists():
            continue  # IPv6 is switched off: nothing to route
        answers = netlink.snapshot(rt.GETRULE, policy_rules.get_rules(family))
        # Without the option the kernel answers with the rules of other families.
        if not any(rt.family_of(message.body) is family for message in answers):
            yield f"policy routing for {family.nfproto} (kernel option {_POLICY_RULES[family]})"


def _resilient_groups(netlink: NetlinkSocket) -> Iterator[str]:
    try:
        # Buckets came with resilient groups; asking for them changes nothing.
        netlink.snapshot(nh.GETNEXTHOPBUCKET, nh.get_nexthops())
    except KernelError as e:
        yield f'resilient nexthop groups, which algorithm = "multipath" needs (Linux 5.13): {e}'
