"""A network is behind this box, and the kernel does not forward."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.core.net import FAMILIES, Family
from polywan.core.plan.cautions import FORWARDING
from polywan.core.plan.lans import Lan
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import name_of, set_and_keep
from polywan.doctor.checks.routing.routed import routes_for


def check(box: Box) -> Iterator[Finding]:
    """Find families with a network behind and a way out, that are not forwarded."""
    if box.config is not None and isinstance(box.config.global_.forwarding, bool):
        return  # polywan sets it, or is not to
    for family in FAMILIES:
        behind, path = [lan for lan in box.inside(family) if _asks(box, lan)], FORWARDING[family]
        if behind and box.sending(family) and box.setting(path) == 0:
            yield _finding(box, family, behind)


def _asks(box: Box, lan: Lan) -> bool:
    """True when the box routes for a network, or when it may: the file leaves it open, and the daemon warns of it."""
    return routes_for(box, lan, named=True) or (box.config is not None and box.config.global_.forwarding == "auto")


def _finding(box: Box, family: Family, behind: list[Lan]) -> Finding:
    name = name_of(FORWARDING[family])
    fix = Fix(how=f"set {name} to 1", steps=set_and_keep({FORWARDING[family]: "1"}))
    if box.config is not None:
        fix = Fix(how="write `global.forwarding = true` into the file if this box routes for them, otherwise `false`")
    return Finding(
        check="forwarding-off",
        severity="fault" if any(routes_for(box, lan, named=True) for lan in behind) else "warning",
        what=f"IPv{family} forwarding is off, and there is a network behind this box: {' and '.join(map(str, behind))}",
        evidence=(f"{name} = 0",),
        consequence="packets of its hosts end here: this box uses its links, and they do not",
        fix=fix,
    )
