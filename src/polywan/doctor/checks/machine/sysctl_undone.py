"""A file of settings takes back, at the next start or when a link appears, what the box works by now.

Only what is right in the kernel and wrong in the files is found: what is wrong already, other checks find. A setting
that a script of the administrator's writes is left out, since that comes after the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from polywan.api.doctor import Finding, Fix
from polywan.core.net import FAMILIES, TABLE_MAIN, Family
from polywan.core.plan.cautions import FORWARDING
from polywan.core.resolved import resolve
from polywan.core.routing.sysctls import EVENTS, wants_forwarding
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import SETTINGS_FILE, name_of, written
from polywan.doctor.facts.boot_settings import Line, SettingsFile, decisive

_STRICT: Final = 1
_IGNORED: Final = 0


class _Undone(NamedTuple):
    """Settings that a line takes back.

    Attributes:
        line: of the file.
        present: what is in force, as "net.ipv4.ip_forward = 1".
        wanted: values by their names with dots.
        polywan: it writes the setting itself, each time.
    """

    line: Line
    present: str
    wanted: dict[str, str]
    consequence: str
    polywan: bool


def check(box: Box) -> Iterator[Finding]:
    """Hold the files against what is in force."""
    for undone in (*_forwarding(box), *_filtering(box), *_advertisements(box), *_without_ipv6(box), *_events(box)):
        yield _finding(box, undone)


def _decides(box: Box, path: str) -> Line | None:
    """Return the line about a setting, unless a script writes it after that."""
    line = decisive(box.machine.boot, path)
    name = path.rpartition("/")[2]
    scripts = (text for at, text in box.scripts.items() if "sysctl" not in at)
    return None if line is None or any(name in text for text in scripts) else line


def _number(line: Line | None) -> int | None:
    return int(line.value) if line is not None and line.value is not None and line.value.isdecimal() else None


def _runs(box: Box) -> bool:
    return box.status is not None


def _forwarding(box: Box) -> Iterator[_Undone]:
    if box.config is not None and box.config.global_.forwarding is False:
        return
    own = _runs(box) and box.config is not None and wants_forwarding(resolve(box.config, {}))
    for family in FAMILIES:
        path = FORWARDING[family]
        line = _decides(box, path)
        if line is not None and _number(line) == 0 and box.setting(path) and box.inside(family) and box.sending(family):
            behind = listed([str(lan) for lan in box.inside(family)])
            yield _Undone(
                line,
                f"{name_of(path)} = {box.setting(path)} now",
                {name_of(path): "1"},
                f"after a restart packets from {behind} end here (IPv{family})",
                own,
            )


def _filtering(box: Box) -> Iterator[_Undone]:
    """Strict filtering drops answers on links that main's best default does not lead to."""
    best = box.observed.main_default_links(Family.V4)
    found: dict[Line, list[str]] = {}
    for egress in box.sending(Family.V4):
        device = egress.device
        led_by_mark = bool(egress.mark) or egress.table != TABLE_MAIN
        if egress.ours or not led_by_mark or best == {device} or _strict_now(box, device) or _marks_count(box, device):
            continue
        if (line := _strict_later(box, device)) is not None and device not in found.setdefault(line, []):
            found[line].append(device)
    for line, devices in found.items():
        if devices:
            now = ", ".join(f"net.ipv4.conf.{d}.rp_filter has the effect of {_effective(box, d)} now" for d in devices)
            yield _Undone(
                line,
                now,
                {"net.ipv4.conf.all.rp_filter": "2"},
                f"after a restart answers that arrive by {listed(devices)} are dropped: connections by it hang",
                polywan=False,
            )


def _conf(name: str, key: str = "rp_filter") -> str:
    return f"net/ipv4/conf/{name}/{key}"


def _effective(box: Box, device: str) -> int:
    return max(box.setting(_conf(name)) or 0 for name in ("all", device))


def _strict_now(box: Box, device: str) -> bool:
    return _effective(box, device) == _STRICT


def _marks_count(box: Box, device: str) -> bool:
    """With src_valid_mark the filter asks for the way back with the mark, and finds it."""
    for path in (_conf("all", "src_valid_mark"), _conf(device, "src_valid_mark")):
        line = _decides(box, path)
        if _number(line) if line is not None else box.setting(path):
            return True
    return False


def _strict_later(box: Box, device: str) -> Line | None:
    """Return the line that makes the filter strict; the largest of `all` and the device counts."""
    lines = {name: _decides(box, _conf(name)) for name in ("all", device, "default")}
    whole = lines["all"]
    own = lines[device] or lines["default"]
    of_all = _number(whole) if whole is not None else box.setting(_conf("all"))
    of_device = _number(own) if own is not None else box.setting(_conf(device))
    if max(of_all or 0, of_device or 0) != _STRICT:
        return None
    return next((line for line in (whole, own) if _number(line) == _STRICT), None)


def _advertisements(box: Box) -> Iterator[_Undone]:
    """A link whose IPv6 default comes by advertisements; a box that forwards listens to them with 2 only."""
    forwards = box.setting(FORWARDING[Family.V6]) == 1
    for device in dict.fromkeys(d.link for d in box.observed.defaults if d.advertised and d.family is Family.V6):
        path = f"net/ipv6/conf/{device}/accept_ra"
        line = _decides(box, path)
        value = _number(line)
        if line is None or value is None or value == box.setting(path) or not box.setting(path):
            continue
        if value == _IGNORED or (value == 1 and forwards):
            yield _Undone(
                line,
                f"{name_of(path)} = {box.setting(path)} now",
                {name_of(path): "2"},
                f"after a restart {device} gets no IPv6 default route from its router's advertisements",
                polywan=_runs(box) and value == 1 and _is_uplink(box, device),
            )


def _without_ipv6(box: Box) -> Iterator[_Undone]:
    devices = {egress.device for egress in box.sending(Family.V6)}
    found: dict[Line, list[str]] = {}
    for device in sorted(devices):
        for name in (device, "all"):
            line = _decides(box, f"net/ipv6/conf/{name}/disable_ipv6")
            if line is not None and _number(line) == 1:
                found.setdefault(line, []).append(device)
                break
    for line, off in found.items():
        yield _Undone(
            line,
            f"{listed(off)} {'has' if len(off) == 1 else 'have'} IPv6 now",
            {},
            f"after a restart {listed(off)} {'has' if len(off) == 1 else 'have'} no IPv6",
            polywan=False,
        )


def _events(box: Box) -> Iterator[_Undone]:
    line = _decides(box, EVENTS)
    if box.config is not None and line is not None and _number(line) == 0 and box.setting(EVENTS):
        yield _Undone(
            line,
            f"{name_of(EVENTS)} = {box.setting(EVENTS)} now",
            {name_of(EVENTS): "2"},
            "after a restart only probes notice a link that is silent under load, "
            "and idle connections of a dead link are not released",
            polywan=False,
        )


def _is_uplink(box: Box, device: str) -> bool:
    return box.config is not None and any(u.interface == device for u in box.config.uplinks.values())


def _finding(box: Box, undone: _Undone) -> Finding:
    line = undone.line
    setting = f"{name_of(line.pattern)} = {line.value}"
    if undone.polywan:
        consequence = "polywan sets it again each time; without polywan, " + undone.consequence
    else:
        consequence = undone.consequence
    return Finding(
        check="sysctl-undone",
        severity="note" if undone.polywan else "warning",
        what=f"{line.file.path} sets {setting} at the next start, and the box works by another value",
        evidence=(f"{line.file.path}:{line.number}: {setting}", undone.present),
        consequence=consequence,
        fix=_fix(box, undone),
    )


def _fix(box: Box, undone: _Undone) -> Fix:
    """Add a file that is read later than theirs, where such a file has the last word."""
    line, step = undone.line, written(undone.wanted)
    own = SettingsFile(SETTINGS_FILE, step.text)
    files = sorted([*(file for file in box.machine.boot if file.path != own.path), own], key=lambda file: file.name)
    if line.file.path != own.path and undone.wanted and all(_last(files, own, name) for name in undone.wanted):
        words = listed([f"{name} = {value}" for name, value in undone.wanted.items()])
        return Fix(how=f"set {words} in a file that is read later", steps=(step,))
    return Fix(how=f"remove or correct line {line.number} of {line.file.path}")


def _last(files: list[SettingsFile], own: SettingsFile, name: str) -> bool:
    found = decisive(files, name_of(name))
    return found is not None and found.file is own
