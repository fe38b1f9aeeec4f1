"""What files, units, tools and the clock of a box say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from polywan.doctor.facts.boot_settings import SettingsFile


class Clock(NamedTuple):
    """What is known of the time.

    Attributes:
        synchronised: by a time service, as the kernel was told; None where it does not say.
        confirmed: Unix time up to which a time service confirmed the clock some day; 0 when that is not recorded.
        local: the zone that /etc/localtime leads to, such as "Europe/Berlin"; empty where that is no link.
        named: the zone that /etc/timezone names.
    """

    synchronised: bool | None = None
    confirmed: float = 0.0
    local: str = ""
    named: str = ""


class Unit(NamedTuple):
    """A unit file of systemd; `enabled` when something wants it at boot."""

    path: str
    enabled: bool
    masked: bool


class Process(NamedTuple):
    """A running daemon of polywan.

    Attributes:
        arguments: as it was started.
        group: its control group, as /proc/PID/cgroup has it.
        zone: its TZ; None when it has none, or may not be seen.
        config: its file, where links lead; None when that is not known.
    """

    pid: int
    arguments: tuple[str, ...]
    group: str
    zone: str | None = None
    config: str | None = None


_OPTIONS: Final = ("--config", "-c")
_DEFAULT: Final = "/etc/polywan/polywan.toml"


def config_of(arguments: Sequence[str]) -> str | None:
    """Return the file that a daemon was started with; None when these are not the arguments of `polywan run`."""
    if "run" not in arguments:
        return None
    for word, following in zip(arguments, (*arguments[1:], ""), strict=True):
        name, assigned, value = word.partition("=")
        if name in _OPTIONS:
            return value if assigned else following
    return _DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What was found on a box beside its network.

    Attributes:
        tracking: sums of /proc/net/stat/nf_conntrack over all CPUs, by column.
        tracking_fixed: the size of the connection tracking table cannot be set from here, as in a container.
        boot: files with settings, in the order in which they are applied.
        clock: what is known of the time.
        release: of the kernel; `modules`: its modules are there, or it never had any.
        absent: programs that were looked for (`TOOLS`) and are not installed.
        systemd: it runs this box.
        unit: of polywan.
        daemon: that of this network namespace; `elsewhere`: process ids of those of other ones.
        config: the file at hand, where links lead.
        unread_files: files of conf.d that polywan does not read, and their texts.
    """

    tracking: Mapping[str, int] = field(default_factory=dict)
    tracking_fixed: bool = False
    boot: tuple[SettingsFile, ...] = ()
    clock: Clock = field(default_factory=Clock)
    release: str = ""
    modules: bool = True
    absent: frozenset[str] = frozenset()
    systemd: bool = False
    unit: Unit | None = None
    daemon: Process | None = None
    elsewhere: tuple[int, ...] = ()
    config: str = ""
    unread_files: Mapping[str, str] = field(default_factory=dict)
