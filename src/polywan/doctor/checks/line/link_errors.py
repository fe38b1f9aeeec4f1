"""A cable or port is bad: packets arrive damaged, or the ends agreed on less than both can do."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from polywan.api.doctor import Finding, Fix
from polywan.core.words import counted
from polywan.doctor.box import Box
from polywan.doctor.facts.port import PortCounters, PortMode


def check(box: Box) -> Iterator[Finding]:
    """Find devices with many errors, half duplex, and less speed than both ends offered."""
    for device in _devices(box):
        if (found := box.line.counters.get(device)) is not None and found.bad:
            yield _errors(device, found, box.line.later.get(device))
        if (mode := box.line.modes.get(device)) is not None:
            yield from _mode(device, mode)


def _devices(box: Box) -> list[str]:
    """Return the devices of lines, and what carries them: the port of a VLAN, the members of a bond."""
    links = box.observed.links
    by_index = {link.index: link for link in links.values()}
    found = [links[egress.device] for egress in box.egresses if egress.device in links]
    for link in found:
        parent = by_index.get(link.parent)
        members = [other for other in links.values() if other.master == link.index and other.member_of == "bond"]
        found += [each for each in (parent, *members) if each is not None and each not in found]
    return list(dict.fromkeys(link.name for link in found))


def _errors(device: str, before: PortCounters, after: PortCounters | None) -> Finding:
    more = (after.rx_errors + after.tx_errors - before.rx_errors - before.tx_errors) if after is not None else 0
    bad = ", ".join(f"{key} {number}" for key, number in before.errors.items() if number)
    evidence = [
        f"`ip -s -s link show {quote(device)}`: {bad}, of {before.received} packets received and {before.sent} sent"
    ]
    if more > 0:
        evidence.append(f"{counted(more, 'error')} more within 2 s")
    return Finding(
        check="link-errors",
        severity="warning" if more > 0 else "note",
        what=f"{device} {'loses' if more > 0 else 'has lost'} packets to errors of the line",
        evidence=tuple(evidence),
        consequence=f"downloads by {device} are slower than the line, and calls break up"
        if more > 0
        else "nothing, if this was long ago: the counters began when the device was made",
        fix=Fix(how=f"exchange the cable of {device}, then use another port; on a tunnel, compare both ends' settings"),
    )


def _mode(device: str, mode: PortMode) -> Iterator[Finding]:
    best = max(mode.offers, default=0)
    if mode.half and (not mode.partner or any(not half for _, half in mode.partner)):
        yield _agreed(
            device,
            f"{device} runs half duplex at {mode.speed} Mbit/s",
            f"`ethtool {quote(device)}`: Speed: {mode.speed}Mb/s, Duplex: Half",
            "one end sends while the other does, and under load packets are lost in collisions",
            "let both ends negotiate (`ethtool -s {} autoneg on`); one that is set by hand needs the other set alike",
        )
    elif mode.speed and mode.speed < best:
        yield _agreed(
            device,
            f"{device} runs at {mode.speed} Mbit/s, although both ends offered {best}",
            f"`ethtool {quote(device)}`: Speed: {mode.speed}Mb/s, and {best} is among the advertised modes of both",
            f"the line cannot be faster than {mode.speed} Mbit/s: a pair of wires in the cable is broken as a rule",
            "exchange the cable of {}, then use another port",
        )


def _agreed(device: str, what: str, evidence: str, consequence: str, how: str) -> Finding:
    return Finding(
        check="link-errors",
        severity="warning",
        what=what,
        evidence=(evidence,),
        consequence=consequence,
        fix=Fix(how=how.format(quote(device))),
    )
