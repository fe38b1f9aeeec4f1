"""What the daemon works by is not what stands in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from json import dumps
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.words import counted
from polywan.doctor.box import Box
from polywan.doctor.facts.machine import Process

_MOST: Final = 5
_OURS: Final = re.compile(r"^\s*(\[uplinks\.|\[policies\.|\[\[rules\]\]|\[global\]|\[health\])", re.MULTILINE)
_PUT_ASIDE: Final = re.compile(r"(~|[.-](bak|orig|old|save|disabled|off|sample|example|(dpkg|rpm|ucf)[-a-z]*))$")


def check(box: Box) -> Iterator[Finding]:
    """Compare the daemon's file with the one at hand, and both with what is in force."""
    daemon = box.machine.daemon
    if daemon is not None and daemon.config is not None and daemon.config != box.machine.config:
        if box.config is not None or box.config_faults:
            yield _other_file(box, daemon, daemon.config)
    elif box.config is not None and box.in_force is not None:
        differences = list(_differences(box.in_force, box.config.model_dump(mode="json", by_alias=True)))
        if differences:
            yield _not_reloaded(box, differences)
    for path, text in box.machine.unread_files.items():
        if _OURS.search(text) and not _PUT_ASIDE.search(path):
            yield _unread(path)


def _other_file(box: Box, daemon: Process, used: str) -> Finding:
    return Finding(
        check="two-configurations",
        severity="warning",
        what=f"the daemon uses {used}, not {box.config_path}",
        evidence=(f"/proc/{daemon.pid}/cmdline: {' '.join(daemon.arguments)}", f"{box.config_path} is there"),
        consequence=f"what is changed in {box.config_path} has no effect",
        fix=Fix(how="keep one of the two: remove the file, or start the daemon without --config"),
    )


def _differences(before: object, after: object, key: str = "") -> Iterator[str]:
    """Yield the keys that differ, with both values."""
    if before == after:
        return
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        yield f"{key}: {dumps(after)} in the file, {dumps(before)} in force"
        return
    for name in dict.fromkeys((*before, *after)):
        path = f"{key}.{name}" if key else str(name)
        if name in before and name in after:
            yield from _differences(before[name], after[name], path)
        else:
            yield f"{path}: {'only in the file' if name in after else 'not in the file any more'}"


def _not_reloaded(box: Box, differences: list[str]) -> Finding:
    more = len(differences) - _MOST
    return Finding(
        check="two-configurations",
        severity="warning",
        what=f"{box.config_path} was changed, and the daemon still uses what it read before",
        evidence=(*differences[:_MOST], *([f"and {counted(more, 'more key')}"] if more > 0 else [])),
        consequence="the change is not in force, and will be at the next start",
        fix=Fix(how="put it in force", steps=(Step(command=("polywan", "reload")),)),
    )


def _unread(path: str) -> Finding:
    return Finding(
        check="two-configurations",
        severity="warning",
        what=f"{path} looks like a part of the configuration, and polywan does not read it",
        evidence=("of conf.d, only names that end in .toml are read",),
        consequence="what it says has no effect",
        fix=Fix(how=f"give it a name that ends in .toml, or one that ends in .disabled: mv {path} {path}.toml"),
    )
