"""Settings of the kernel in memory: those of a device come and go with it."""

from __future__ import annotations

from collections.abc import Mapping

from polywan.core.routing.sysctls import Sysctl


class FakeSettings:
    """What is below /proc/sys.

    Attributes:
        sysctls: values by path.
        new_device: what a device begins with, by "ipv4/NAME" and "ipv6/NAME".
    """

    def __init__(self) -> None:
        super().__init__()
        self.sysctls: dict[str, str] = {}
        self.new_device: Mapping[str, str] = {}

    def begin_settings(self, device: str) -> None:
        """Give a device the settings of a new one."""
        self.end_settings(device)
        for setting, value in self.new_device.items():
            family, _, name = setting.partition("/")
            self.sysctls[f"net/{family}/conf/{device}/{name}"] = value

    def end_settings(self, device: str) -> None:
        """Take the settings of a device away, as its end does."""
        self.sysctls = {path: v for path, v in self.sysctls.items() if path.split("/")[2:4] != ["conf", device]}

    def tamper_sysctl(self, sysctl: Sysctl) -> None:
        """Change a setting behind our back; the kernel tells nobody."""
        self.sysctls[sysctl.path] = sysctl.value
