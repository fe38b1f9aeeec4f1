"""A multipath route chooses by addresses alone, so that a client and a server always meet on one link."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix, Step
from polywan.core.net import FAMILIES
from polywan.core.routing.sysctls import HASH_POLICIES
from polywan.doctor.box import Box


def check(box: Box) -> Iterator[Finding]:
    """Find families with a multipath default and hash policy 0."""
    for family, path in zip(FAMILIES, HASH_POLICIES, strict=True):
        routes = [route for route in box.routes if route.family is family and route.default and len(route.hops) > 1]
        if not routes or box.setting(path) != 0:
            continue
        name = path.replace("/", ".")
        devices = " and ".join(dict.fromkeys(hop.device for hop in routes[0].hops))
        keep = Step(path="/etc/sysctl.d/90-uplinks.conf", text=f"{name} = 1\n", append=True)
        yield Finding(
            check="hash-policy",
            severity="warning",
            what=f"the default route over {devices} chooses a link by addresses alone (IPv{family})",
            evidence=(f"{name} = 0", f"ip -{family} route show table {routes[0].table}: a default by {devices}"),
            consequence="all connections between a client and a server use one link, however many there are",
            fix=Fix(
                how="choose by ports as well",
                steps=(Step(command=("sysctl", "-q", "-w", f"{name}=1")), keep),
            ),
        )
