"""Read the files by which administrators and programs set up networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from polywan.doctor.facts.scripts import TABLE_NAMES
from polywan.doctor.reading.texts import text

MOST_FILES: Final = 400
LONGEST_SCRIPT: Final = 1 << 16
"""Of one file; what is longer is a program, and is left out."""

_PLACES: Final = (
    *(f"etc/ppp/{name}" for name in ("ip-*", "ipv6-*", "ip-*.d/*", "ipv6-*.d/*")),
    "etc/rc.local",
    "etc/rc.d/rc.local",
    "etc/network/interfaces",
    "etc/network/interfaces.d/*",
    "etc/network/if-*.d/*",
    "etc/NetworkManager/dispatcher.d/*",
    "etc/NetworkManager/dispatcher.d/*.d/*",
    "etc/networkd-dispatcher/*.d/*",
    "etc/dhcp/dhclient-*-hooks.d/*",
    "etc/dhcpcd.*",
    "etc/openvpn/*.sh",
    "etc/openvpn/*/*.sh",
    "etc/sysconfig/network-scripts/*",
    "etc/local.d/*",
    "etc/crontab",
    "etc/cron.d/*",
    "etc/cron.hourly/*",
    "etc/cron.daily/*",
    "var/spool/cron/crontabs/*",
    "var/spool/cron/*",
    "usr/local/bin/*",
    "usr/local/sbin/*",
    *TABLE_NAMES,
    "etc/iproute2/rt_tables.d/*.conf",
)


def read(root: Path) -> Mapping[str, str]:
    """Return their texts by path, as seen from the root; regular files only, and none that is long."""
    found: dict[str, str] = {}
    for path in islice(_files(root), MOST_FILES):
        words = text(path, LONGEST_SCRIPT + 1)
        if words and len(words.encode()) <= LONGEST_SCRIPT:
            found[f"/{path.relative_to(root)}"] = words
    return found


def _files(root: Path) -> Iterator[Path]:
    for place in _PLACES:
        with suppress(OSError):
            yield from sorted(root.glob(place))
