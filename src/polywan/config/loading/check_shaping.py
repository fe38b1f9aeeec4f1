"""What shaping needs of the rest of an uplink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polywan.config.faults import ConfigFault, Path, shown
from polywan.config.model.shaping import IFB_PREFIX
from polywan.config.model.uplink import Uplink


def check_shaping(path: Path, uplink: Uplink) -> Iterator[ConfigFault]:
    """Yield what an uplink's shaping lacks, what has no effect in it, and a device whose name belongs to shaping."""
    if uplink.interface.startswith(IFB_PREFIX):
        yield ConfigFault(
            (*path, "interface"),
            f"{shown(uplink.interface)} cannot be an uplink: polywan gives such names to devices that it makes itself",
            "name the device that leads to the provider",
        )
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
