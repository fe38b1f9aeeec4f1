"""Steps that set a value now, and after the next start of the box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from polywan.api.doctor import Step

SETTINGS_FILE: Final = "/etc/sysctl.d/90-uplinks.conf"
_MODULES_FILE: Final = "/etc/modules-load.d/90-uplinks.conf"


def set_and_keep(values: Mapping[str, str]) -> tuple[Step, ...]:
    """Return the steps for settings by their names with dots."""
    now = tuple(Step(command=("sysctl", "-q", "-w", f"{name}={value}")) for name, value in values.items())
    return (*now, written(values))


def written(values: Mapping[str, str]) -> Step:
    """Return the step that makes them last."""
    text = "".join(f"{name} = {value}\n" for name, value in values.items())
    return Step(path=SETTINGS_FILE, text=text, append=True)


TRACKING_AT_BOOT: Final = Step(path=_MODULES_FILE, text="nf_conntrack\n", append=True)
"""The settings of connection tracking exist once its module is loaded; files of settings are read before rules are."""
