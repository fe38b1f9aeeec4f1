"""systemd-networkd removes policy rules and routes of other programs when it sets up a link.

It does so unless ManageForeignRoutingPolicyRules and ManageForeignRoutes are off (networkd.conf(5)): when it starts,
and also for a link that appears later. Rules of the protocol `kernel` stay, and its own have `static`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.words import counted, listed
from polywan.doctor.box import Box
from polywan.doctor.checks.neighbours.lines import is_multi_wan

KEYS: Final = ("ManageForeignRoutingPolicyRules", "ManageForeignRoutes")
_PROCESS: Final = "systemd-network"
"""Its name as ps(1) has it, 15 characters."""

_KERNEL, _STATIC = 2, 4  # linux/rtnetlink.h RTPROT_KERNEL, RTPROT_STATIC

_DROP_IN: Final = "/etc/systemd/networkd.conf.d/90-uplinks.conf"
_TEXT: Final = "[Network]\n" + "".join(f"{key}=no\n" for key in KEYS)
_MOST: Final = 4


class _Setting(NamedTuple):
    """Whether it removes, and where that is said; nothing is said by default."""

    removes: bool = True
    file: str = ""


def check(box: Box) -> Iterator[Finding]:
    """Find a networkd that takes away rules made by hand, or ours."""
    facts = box.programs
    if _PROCESS not in facts.running or not facts.managed or not is_multi_wan(box):
        return
    settings = {key: _setting(facts.networkd, key) for key in KEYS}
    if not settings[KEYS[0]].removes:
        return
    rules = [rule for rule in box.observed.rules if rule.protocol not in (_KERNEL, _STATIC)]
    if not rules and box.config is None:
        return
    devices = [name for name, link in box.observed.links.items() if link.index in facts.managed]
    evidence = [
        f"{key} is {'on' if setting.removes else 'off'} ({setting.file or 'the default'})"
        for key, setting in settings.items()
    ]
    yield Finding(
        check="manager-removes-rules",
        severity="warning" if rules else "note",
        what=f"systemd-networkd removes rules and routes of other programs when it sets up a link ({listed(devices)})",
        evidence=(*evidence, *(f"ip rule: {rule.text()}" for rule in rules[:_MOST])),
        consequence=f"a restart of it, or a device that is plugged in, removes {counted(len(rules), 'rule')} for good"
        if rules
        else "polywan has its own back within 2 s (`drift.repaired` in its log)",
        fix=Fix(
            how=f"tell it in {_DROP_IN} to leave them alone; it reads that when it starts the next time",
            steps=(Step(path=_DROP_IN, text=_TEXT, append=True),),
        ),
    )


def _setting(files: Mapping[str, str], key: str) -> _Setting:
    found = _Setting()
    for path, text in files.items():
        section = ""
        for line in map(str.strip, text.splitlines()):
            name, equals, value = (part.strip() for part in line.partition("="))
            if line.startswith("["):
                section = line
            elif equals and section == "[Network]" and name == key:
                found = _Setting(value.lower() not in ("no", "n", "false", "f", "off", "0"), path)
    return found
