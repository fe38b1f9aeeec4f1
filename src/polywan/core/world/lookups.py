"""What rules refer to outside of the configuration and the network: prefix files, domains, control groups, local time.

The shell reads these (`daemon/lookups/watcher.py`) and hands them over as one value; a decision never reads anything
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from polywan.core.net import Family, IPAddress

if TYPE_CHECKING:
    # The command `exec` needs the names of groups only, and pydantic is half of a command's start-up time.
    from polywan.config import Config


@dataclass(frozen=True, slots=True)
class PrefixList:
    """The prefixes of a file, as nft(8) reads them: sorted, none within another, apart by family.

    Attributes:
        digest: of the contents, 8 hexadecimal digits; part of the set's name, so that new contents are a new set.
    """

    digest: str
    v4: tuple[str, ...] = ()
    v6: tuple[str, ...] = ()

    def of(self, family: Family) -> tuple[str, ...]:
        """Return the prefixes of one family."""
        return self.v4 if family is Family.V4 else self.v6


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A control group (version 2) that exists.

    Attributes:
        path: below /sys/fs/cgroup, as nft(8) wants it; on hybrid systems it begins with the mount point's name.
        level: depth below the root of the version 2 hierarchy; the root's children have 1.
        inode: tells a group from another that was made under the same name.
    """

    path: str
    level: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """What is known; an absent list, domain or control group is not known (yet), and its condition never holds.

    Attributes:
        lists: by path as the file names it.
        domains: addresses by name.
        cgroups: those that exist, by path as the file names them.
        utc_offset: seconds that local time is ahead of UTC now.
        kernel_west: seconds that the kernel's own time zone lies west of UTC (the second argument of settimeofday(2),
            mostly 0); its netfilter counts days by that zone.
        problems: what could not be read, for people.
    """

    lists: Mapping[str, PrefixList] = field(default_factory=dict)
    domains: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    cgroups: Mapping[str, ControlGroup] = field(default_factory=dict)
    utc_offset: int = 0
    kernel_west: int = 0
    problems: tuple[str, ...] = ()


NOTHING = Lookups()
"""Nothing was looked up: what a configuration without such conditions needs."""


VIA = "polywan"
"""Control group below which `polywan exec --via NAME` puts programs: polywan/NAME."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What has to be looked up for a configuration."""

    lists: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()


def wanted(config: Config) -> References:
    """Return what the rules refer to, and the control groups of `exec --via`."""
    matches = [m for rule in config.rules for m in (rule, rule.not_)]
    return References(
        lists=tuple(dict.fromkeys(path for m in matches for path in m.list_)),
        domains=tuple(dict.fromkeys(name for m in matches for name in m.domains)),
        cgroups=tuple(
            dict.fromkeys([*(path for m in matches for path in m.cgroup), VIA, *map(via_group, config.uplinks)])
        ),
    )


def users(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the rules that refer to each list and domain, counted from 1 as people do."""
    found: dict[str, tuple[int, ...]] = {}
    for number, rule in enumerate(config.rules, start=1):
        for what in dict.fromkeys((*rule.list_, *rule.not_.list_, *rule.domains, *rule.not_.domains)):
            found[what] = (*found.get(what, ()), number)
    return found


def via_group(uplink: str) -> str:
    """Return the control group of the programs that `exec --via` has bound to an uplink."""
    return f"{VIA}/{uplink}"
