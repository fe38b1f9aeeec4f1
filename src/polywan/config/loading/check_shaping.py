"""What shaping needs of the rest of an uplink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polywan.config.faults import ConfigFault, Path, shown
from polywan.config.model.uplink import Uplink


def check_shaping(path: Path, uplink: Uplink) -> Iterator[ConfigFault]:
    """Yield what an uplink's shaping lacks, and what has no effect in it."""
    if uplink.shaping is None:
        return
    if uplink.bandwidth is None:
        yield ConfigFault(
            (*path, "shaping"),
            "needs the uplink's bandwidth, which is absent",
            'add bandwidth = {down = "…", up = "…"} with what the line carries',
        )
    if uplink.shaping.link is not None and uplink.shaping.algorithm != "cake":
        yield ConfigFault(
            (*path, "shaping", "link"),
            f'has no effect with algorithm {shown(uplink.shaping.algorithm)}: only "cake" counts what the line adds',
            'remove link and lower share, or set algorithm = "cake"',
        )


def check_shaped_devices(uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    """Yield uplinks that are shaped and share their device with another one: a device has one queue for all."""
    for name, uplink in uplinks.items():
        if uplink is None or uplink.shaping is None:
            continue
        other = next((n for n, u in uplinks.items() if u and n != name and u.interface == uplink.interface), None)
        if other is not None:
            yield ConfigFault(
                ("uplinks", name, "shaping"),
                f"cannot be used: uplink {shown(other)} has the same device {shown(uplink.interface)}, and a device "
                "has one queue for all its packets",
                "remove shaping, or give each uplink a device of its own",
            )
