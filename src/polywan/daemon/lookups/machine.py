"""Read what rules refer to on this machine: files of prefixes, control groups, local time.

With files of prefixes it blocks and runs in a thread; without, it takes as long as a few files of /proc.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from polywan.config.loading import prefix_file
from polywan.config.loading.prefix_file import ListError, Stamp
from polywan.core.errors import MissingFeature
from polywan.core.world import prefix_lists
from polywan.core.world.lookups import VIA, ControlGroup, PrefixList, References
from polywan.kernel import cgroups as groups
from polywan.kernel.timezone import minutes_west

FILE_QUIET: Final = 0.25
"""Seconds for which a file has to be left alone before it takes the place of contents that are in force: an editor
empties a file before it writes it, and a rule's list must not be empty meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListState:
    """A file of prefixes as last seen.

    Attributes:
        stamp: of the contents that were judged; None when they have to be looked at again in any case.
        good: the last good contents.
        problem: what is wrong with the present contents, beginning with the file's name.
        busy: somebody is writing it just now.
    """

    stamp: Stamp | None = None
    good: PrefixList | None = None
    problem: str = ""
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What was found on this machine; the fields mean what those of `Lookups` do."""

    lists: Mapping[str, ListState] = field(default_factory=dict)
    cgroups: Mapping[str, ControlGroup] = field(default_factory=dict)
    utc_offset: int = 0
    kernel_west: int = 0

    @property
    def busy(self) -> bool:
        """It is worth looking again soon."""
        return any(state.busy for state in self.lists.values())


def look(wanted: References, before: Local, mounts: Path = groups.MOUNTS) -> Local:
    """Look at everything that is wanted; files that did not change are not read."""
    # The C library looks at /etc/localtime when it is told to, and otherwise once in a process's life.
    time.tzset()
    now = time.time()
    return Local(
        lists={path: look_at(path, before.lists.get(path, ListState()), now) for path in wanted.lists},
        cgroups=_cgroups(wanted.cgroups, mounts),
        utc_offset=time.localtime(now).tm_gmtoff,
        kernel_west=60 * minutes_west(),
    )


def look_at(path: str, before: ListState, now: float) -> ListState:
    """Look at one file at Unix time `now`; contents that are bad never replace good ones."""
    file = Path(path)
    try:
        found = prefix_file.stamp(file)
        if found == before.stamp:
            return replace(before, busy=False)
        young = 0 <= now - found.touched / 1e9 < FILE_QUIET
        if young and before.good is not None:
            return replace(before, busy=True)
        found, text = prefix_file.read(file)
    except ListError as error:
        # Not kept by a stamp: rights of a folder may change and leave the file's own stamp as it was.
        return ListState(good=before.good, problem=f"{path}: {error}")
    parsed = prefix_lists.parse(text)
    # A clock that ticks too slowly may hide a second change right behind the first one.
    stamp = None if young else found
    if not isinstance(parsed, PrefixList):
        return ListState(stamp=stamp, good=before.good, problem=_problem_of(path, parsed), busy=young)
    same = before.good is not None and before.good.digest == parsed.digest
    return ListState(stamp=stamp, good=before.good if same else parsed, busy=young)


def _problem_of(path: str, faults: tuple[prefix_lists.LineFault, ...]) -> str:
    first, more = faults[0], len(faults) - 1
    hint = f" ({first.hint})" if first.hint else ""
    tail = f"; and {more}{' or more' if len(faults) == prefix_lists.MOST_FAULTS else ''} other lines" if more else ""
    return f"{path}:{first.line}: {first.message}{hint}{tail}"


def _cgroups(paths: tuple[str, ...], mounts: Path) -> dict[str, ControlGroup]:
    """Find the groups that exist; one that does not is no problem, as services come and go."""
    try:
        hierarchy = groups.hierarchy(mounts)
    except (MissingFeature, OSError):
        return {}
    top = groups.find(VIA, hierarchy)
    # Nothing is looked for in a group that is not there.
    there = [path for path in paths if top is not None or not path.startswith(f"{VIA}/")]
    found = {path: groups.find(path, hierarchy) for path in there}
    return {path: group for path, group in found.items() if group is not None}
