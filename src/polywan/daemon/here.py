"""What this machine, as it is now, has to say about a configuration; without a daemon and without privileges."""

from __future__ import annotations

from polywan.config import Config
from polywan.core.errors import PolywanError
from polywan.core.plan import cautions
from polywan.core.plan.plan import ActualState
from polywan.core.resolved import resolve
from polywan.core.world.paths import reach
from polywan.daemon.lookups import leases
from polywan.kernel import sysctl
from polywan.kernel.linux import LinuxKernel


def warnings(config: Config) -> list[str]:
    """Return what keeps the configuration from working here; nothing where the kernel does not show itself.

    A file of which no device exists here is meant for another machine: then one sentence says that.
    """
    resolved = resolve(config, {})
    try:
        kernel = LinuxKernel()
    except PolywanError:
        return []
    try:
        observed = leases.observe(kernel, resolved)
    except PolywanError:
        return []
    finally:
        kernel.close()
    devices = [uplink.interface for uplink in config.uplinks.values()]
    if not any(device in observed.links for device in devices):
        some = ", ".join([*devices[:4], *(["…"] if len(devices) > 4 else [])])
        return [f"no configured interface exists on this machine ({some}): checks that need them were skipped"]
    settings = {path: value for path in cautions.READ_SETTINGS if (value := sysctl.read(path)) is not None}
    reachable = reach(resolved, observed, {})
    found = cautions.cautions(resolved, observed, ActualState(sysctls=settings), reachable)
    return list(dict.fromkeys((*cautions.unusable(resolved, observed, reachable), *found)))
