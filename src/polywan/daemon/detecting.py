"""What `init` sees of this machine; without privileges, and without a change."""

from __future__ import annotations

from dataclasses import dataclass

from polywan.core.detection.candidates import Survey, survey
from polywan.core.net import Family
from polywan.core.plan.cautions import FORWARDING
from polywan.core.world.observed import Observed
from polywan.daemon.lookups import devices, leases
from polywan.kernel import sysctl
from polywan.kernel.linux import LinuxKernel


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen; `forwards`: the box forwards IPv4 at present."""

    survey: Survey
    observed: Observed
    forwards: bool


def look() -> Found:
    """Look at every link of this network namespace.

    Raises:
        KernelError: the kernel does not show itself.
    """
    kernel = LinuxKernel()
    try:
        observed = kernel.observe()
    finally:
        kernel.close()
    links = observed.links.values()
    known = leases.of_links(links, observed)
    return Found(
        survey(observed, devices.read(links), known),
        observed,
        sysctl.read(FORWARDING[Family.V4]) == "1",
    )
