"""Steps that set a value now, and after the next start of the box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from polywan.api.doctor import Step

SETTINGS_FILE: Final = "/etc/sysctl.d/90-uplinks.conf"
_MODULES_FILE: Final = "/etc/modules-load.d/90-uplinks.conf"


def name_of(path: str) -> str:
    """Return a setting's name (sysctl.d(5)) for its path, and the other way round.

    What separates are dots, so that a dot within a device's name is a slash: ``net.ipv4.conf.eth0/100.rp_filter``.
    """
    return path.translate(str.maketrans("/.", "./"))


def set_and_keep(values: Mapping[str, str]) -> tuple[Step, ...]:
    """Return the steps for settings by their paths below /proc/sys."""
    named = {name_of(path): value for path, value in values.items()}
    now = tuple(Step(command=("sysctl", "-q", "-w", f"{name}={value}")) for name, value in named.items())
    return (*now, written(named))


def written(values: Mapping[str, str]) -> Step:
    """Return the step that makes settings last, by their names."""
    text = "".join(f"{name} = {value}\n" for name, value in values.items())
    return Step(path=SETTINGS_FILE, text=text, append=True)


TRACKING_AT_BOOT: Final = Step(path=_MODULES_FILE, text="nf_conntrack\n", append=True)
"""The settings of connection tracking exist once its module is loaded; files of settings are read before rules are."""
