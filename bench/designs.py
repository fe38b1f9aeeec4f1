"""Ways to spread connections over N equal uplinks, as rule sets: polywan's, and those it is compared with.

Each design turns the router of fresh `Wires` into a balancer; namespaces are never used twice, since one policy
rule keeps the kernel on its slower lookup for as long as the namespace lives, even after the rule is gone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal

from wires import LAN, NETWORK, Wires, address, gateway, interface

from polywan.config import Config
from polywan.core.engine import step as engine
from polywan.core.state.effects import Apply, Hold
from polywan.core.state.events import ConfigLoaded, ReadDone
from polywan.core.state.state import State
from polywan.kernel.linux import LinuxKernel
from polywan.kernel.nft.libnftables import Nftables
from polywan.kernel.requirements import has_flowtable
from polywan.lab.sandbox import LabError

MARK_MASK: Final = 0x3F00
WIDE_MARK_MASK: Final = 0xFF00
_MOST_IN_MARK_MASK: Final = 62


@dataclass(frozen=True, slots=True)
class Design:
    """A rule set under comparison.

    Attributes:
        title: what tables call it.
        furnish: sets up the router; raises `LabError` when the machine refuses.
        needs: programs beyond those of the lab, with the package that brings each.
        marks: every connection must carry a mark.
        optional: it is left out where the machine refuses.
        offloads: where the kernel can, established connections go into a flowtable.
    """

    title: str
    furnish: Callable[[Wires], None]
    needs: tuple[tuple[str, str], ...] = ()
    marks: bool = False
    optional: bool = False
    offloads: bool = False

    def missing(self) -> str:
        """Name the programs that are not there; empty when all are."""
        absent = [f"{tool} (package {package})" for tool, package in self.needs if shutil.which(tool) is None]
        return ", ".join(absent)


def masquerade() -> str:
    """Return an nft table that gives what leaves by an uplink that uplink's address."""
    hook = "type nat hook postrouting priority srcnat; policy accept;"
    return f'table ip nat {{ chain leaving {{ {hook}\noifname "wan*" masquerade\n}}\n}}\n'


def polywan_config(count: int, weights: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """Return the configuration file, as data, for uplinks u1… on wan1…; weights are taken in turn."""
    uplinks: dict[str, dict[str, Any]] = {f"u{n}": {"interface": interface(n)} for n in range(1, count + 1)}
    if weights:
        for number, uplink in enumerate(uplinks.values()):
            uplink["weight"] = weights[number % len(weights)]
    return {"global": {"mark_mask": mask_for(count)}, "uplinks": uplinks, **more}


def mask_for(count: int) -> int:
    """Return the default mark mask, or a wider one when there are more uplinks than it can tell apart."""
    return MARK_MASK if count <= _MOST_IN_MARK_MASK else WIDE_MARK_MASK


def defaults(wires: Wires) -> list[str]:
    """Return what DHCP clients would have added: a default by every uplink, in order of preference."""
    return [
        f"route add default via {gateway(n)} dev {interface(n)} src {address(n)} metric {100 + n}"
        for n in wires.numbers
    ]


def _generator_alone(wires: Wires) -> None:
    devices = [LAN, *map(interface, wires.numbers)]
    hook = f"type filter hook ingress devices = {{ {', '.join(devices)} }} priority 0; policy drop;"
    wires.router.nft(f"table netdev shut {{ chain arriving {{ {hook}\n}}\n}}\n")


def _bare(wires: Wires) -> None:
    wires.router.ip([f"route add default via {gateway(1)} dev {interface(1)}"])
    wires.router.nft(masquerade())


def _offloaded(wires: Wires) -> None:
    """Add to bare forwarding what makes it as fast as it can be, by hand."""
    _needs_flowtable(wires)
    _bare(wires)
    hook = "type filter hook forward priority filter; policy accept;"
    flows = f"hook ingress priority 0; devices = {{ {LAN}, {interface(1)} }};"
    wires.router.nft(
        f"table inet fast {{\nflowtable f {{\n{flows}\n}}\nchain through {{\n{hook}\n"
        "ct state established flow add @f\n}\n}\n"
    )


def _slow(wires: Wires) -> None:
    _needs_flowtable(wires)
    _polywan(wires, fastpath=False)


def _needs_flowtable(wires: Wires) -> None:
    with wires.router.entered(), closing(Nftables()) as nft:
        known = has_flowtable(nft)
    if not known:
        raise LabError("this kernel has no flowtable")


def _polywan(wires: Wires, *, fastpath: Literal["auto", False] = "auto") -> None:
    """Do what the daemon does first: read the world, decide, carry out the plan."""
    wires.router.ip(defaults(wires))
    settings = polywan_config(wires.count)
    config = Config.model_validate({**settings, "global": {**settings["global"], "fastpath": fastpath}})
    with wires.router.entered():
        kernel = LinuxKernel()
        # The tables that it holds go with it.
        wires.ends.append(kernel.close)
        state, _ = engine.step(State(), ConfigLoaded(config), 0.0)
        observed = kernel.observe()
        actual = kernel.read(engine.sysctl_paths(state, observed))
        _, effects = engine.step(state, ReadDone(observed, actual), 0.0)
        plans = [effect.plan for effect in effects if isinstance(effect, Apply)]
        refused = [failure for plan in plans for failure in kernel.apply(plan).failures]
        for effect in effects:
            if isinstance(effect, Hold):
                kernel.hold(effect.name, effect.table)
    if not plans or refused:
        raise LabError(f"polywan's plan was refused: {refused or 'there is none'}")


def table(number: int) -> int:
    """Return the routing table that hand-made designs give an uplink."""
    return 1000 + number


def _tables(wires: Wires, *, own: bool) -> None:
    """Give every uplink a table with its default and the networks that it must not hide, and main a default."""
    lines = [f"route add default via {gateway(1)} dev {interface(1)}"]
    for n in wires.numbers:
        lines.append(f"route add default via {gateway(n)} dev {interface(n)} table {table(n)}")
        lines.append(f"route add {NETWORK} dev {LAN} table {table(n)}")
        if own:
            lines.append(f"route add 100.64.{n}.0/24 dev {interface(n)} table {table(n)}")
    wires.router.ip(lines)


def _restore(wires: Wires, name: str, rules: Iterable[str]) -> None:
    """Load the rules of one iptables table in one go (iptables-restore(8))."""
    text = "\n".join([f"*{name}", *rules, "COMMIT", ""])
    wires.router.run(["iptables-legacy-restore", "--noflush"], text=text)


def nth_rules(count: int) -> Iterator[str]:
    """Yield the mangle rules of the classic recipe: every Nth new connection is marked n; marks are copied back."""
    for n in range(count):
        choose = f"-m statistic --mode nth --every {count} --packet {n}"
        yield f"-A PREROUTING -s {NETWORK} -m state --state NEW {choose} -j CONNMARK --set-mark {n + 1}"
    for n in range(count):
        yield f"-A PREROUTING -m connmark --mark {n + 1} -j CONNMARK --restore-mark"


def _nth(wires: Wires) -> None:
    _restore(wires, "mangle", nth_rules(wires.count))
    _restore(wires, "nat", [f"-A POSTROUTING -s {NETWORK} -j MASQUERADE"])
    _tables(wires, own=False)
    wires.router.ip(f"rule add fwmark {n} table {table(n)}" for n in wires.numbers)


_MWAN3_SETS: Final = ("custom", "connected", "dynamic")


def mwan3_mark(number: int) -> str:
    """Return the mark of an interface: its number in the mask's lowest bits."""
    return f"{number << 8:#x}"


def mwan3_rules(count: int) -> Iterator[str]:
    """Yield the mangle rules that mwan3 2.12 makes of `count` interfaces in one balanced policy.

    Its marks: all bits of the mask mean "by main", the two numbers below "blackhole" and "unreachable".
    """
    mask = f"{mask_for(count):#x}"
    unmarked, leave = f"-m mark --mark 0x0/{mask}", f"-j MARK --set-xmark {mask}/{mask}"
    fields = f"--nfmask {mask} --ctmask {mask}"
    own = [*(f"mwan3_{kind}_ipv4" for kind in _MWAN3_SETS), "mwan3_ifaces_in", "mwan3_rules", "mwan3_policy_balanced"]
    yield from (f":{chain} - [0:0]" for chain in ["mwan3_hook", *own])
    yield from (f":mwan3_iface_in_{interface(n)} - [0:0]" for n in range(1, count + 1))
    for kind in _MWAN3_SETS:
        yield f"-A mwan3_{kind}_ipv4 -m set --match-set mwan3_{kind}_ipv4 dst {leave}"
    yield f"-A mwan3_hook {unmarked} -j CONNMARK --restore-mark {fields}"
    yield f"-A mwan3_hook {unmarked} -j mwan3_ifaces_in"
    yield from (f"-A mwan3_hook {unmarked} -j mwan3_{kind}_ipv4" for kind in _MWAN3_SETS)
    yield f"-A mwan3_hook {unmarked} -j mwan3_rules"
    yield f"-A mwan3_hook -j CONNMARK --save-mark {fields}"
    yield from (f"-A mwan3_hook -m mark ! --mark {mask}/{mask} -j mwan3_{kind}_ipv4" for kind in _MWAN3_SETS)
    for n in range(1, count + 1):
        device, chain = interface(n), f"mwan3_iface_in_{interface(n)}"
        for kind in _MWAN3_SETS:
            local = f"-m set --match-set mwan3_{kind}_ipv4 src"
            yield f"-A {chain} -i {device} {local} {unmarked} -m comment --comment default {leave}"
        mark = f"-j MARK --set-xmark {mwan3_mark(n)}/{mask}"
        yield f"-A {chain} -i {device} {unmarked} -m comment --comment {device} {mark}"
        yield f"-A mwan3_ifaces_in {unmarked} -j {chain}"
    for n in range(count, 0, -1):
        chance = "" if n == 1 else f"-m statistic --mode random --probability {1000 // n / 1000:.3f} "
        note = f'-m comment --comment "{interface(n)} 1 {n}"'
        yield f"-A mwan3_policy_balanced {unmarked} {chance}{note} -j MARK --set-xmark {mwan3_mark(n)}/{mask}"
    yield f"-A mwan3_rules {unmarked} -m comment --comment default_rule -j mwan3_policy_balanced"
    yield "-A PREROUTING -j mwan3_hook"
    yield "-A OUTPUT -j mwan3_hook"


def mwan3_sets(count: int) -> Iterator[str]:
    """Yield the sets that mwan3's rules refer to (ipset(8)), with the networks that are reached by main."""
    yield from (f"create mwan3_{kind}_ipv4 hash:net" for kind in ("custom", "connected"))
    yield "create mwan3_dynamic_ipv4 list:set"
    own = (f"100.64.{n}.0/24" for n in range(1, count + 1))
    yield from (f"add mwan3_connected_ipv4 {net}" for net in (NETWORK, "127.0.0.0/8", "224.0.0.0/3", *own))


def _mwan3(wires: Wires) -> None:
    wires.router.run(["ipset", "restore"], text="\n".join([*mwan3_sets(wires.count), ""]))
    _restore(wires, "mangle", mwan3_rules(wires.count))
    _restore(wires, "nat", ["-A POSTROUTING -o wan+ -j MASQUERADE"])
    _tables(wires, own=True)
    mask = f"{mask_for(wires.count):#x}"
    lines = []
    for n in wires.numbers:
        lines.append(f"rule add pref {1000 + n} iif {interface(n)} lookup {table(n)}")
        lines.append(f"rule add pref {2000 + n} fwmark {mwan3_mark(n)}/{mask} lookup {table(n)}")
        lines.append(f"rule add pref {3000 + n} fwmark {mwan3_mark(n)}/{mask} unreachable")
    wires.router.ip(lines)


def _ecmp(wires: Wires) -> None:
    wires.router.sysctl({"ipv4/fib_multipath_hash_policy": 1})
    hops = [word for n in wires.numbers for word in ("nexthop", "via", gateway(n), "dev", interface(n))]
    # Not in a batch: ip(8) takes no more than 512 words a line there.
    wires.router.run(["ip", "route", "add", "default", *hops])
    wires.router.nft(masquerade())


_LEGACY: Final = ("iptables-legacy-restore", "iptables")

DESIGNS: Final[dict[str, Design]] = {
    "generator": Design("the generator alone", _generator_alone),
    "bare": Design("bare: forwarding and masquerade, one uplink", _bare),
    "flowtable": Design("bare, and a flowtable", _offloaded, optional=True, offloads=True),
    "polywan": Design("polywan", _polywan, marks=True, offloads=True),
    "slow": Design("polywan without its fast path", _slow, marks=True, optional=True),
    "ecmp": Design("ECMP: one multipath route, masquerade", _ecmp),
    "mwan3": Design("mwan3's rules (iptables, ipset)", _mwan3, (_LEGACY, ("ipset", "ipset")), marks=True),
    "nth": Design("recipe: N nth rules (iptables)", _nth, (_LEGACY,), marks=True),
}
"""By the name that the command line takes; the first two are the yardsticks."""
