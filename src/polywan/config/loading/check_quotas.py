"""What the keys of a quota need of each other, and of the uplinks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polywan.config.faults import ConfigFault, Path, shown
from polywan.config.model.quota import ACTIONS, Quota
from polywan.config.model.uplink import Uplink


def check_quotas(uplinks: Mapping[str, Uplink | None]) -> Iterator[ConfigFault]:
    """Yield what is wrong with quotas; None is an uplink that has faults of its own."""
    for name, uplink in uplinks.items():
        if uplink is None or uplink.quota is None:
            continue
        path: Path = ("uplinks", name, "quota")
        yield from _amounts(path, uplink.quota)
        yield from _actions(path, uplink.quota)
        other = next((n for n, u in uplinks.items() if u and n != name and u.interface == uplink.interface), None)
        if other is not None:
            yield ConfigFault(
                path,
                f"cannot be counted: uplink {shown(other)} has the same device {shown(uplink.interface)}, and the "
                "kernel counts bytes by device",
                "remove quota, or give each uplink a device of its own",
            )


def _amounts(path: Path, quota: Quota) -> Iterator[ConfigFault]:
    if quota.monthly is None and quota.prepaid is None:
        yield ConfigFault(path, "says no amount", 'add monthly = "50GB", or prepaid = "10GB"')
        return
    if quota.monthly is not None and quota.prepaid is not None:
        hint = "a monthly quota begins anew on its billing day, a prepaid one when you buy more; remove one of them"
        yield ConfigFault((*path, "prepaid"), "cannot be used together with monthly", hint)
    if quota.billing_day is not None and quota.monthly is None:
        hint = 'remove billing_day, or write monthly = "…" instead of prepaid'
        yield ConfigFault((*path, "billing_day"), "has no effect without monthly", hint)
    if isinstance(quota.soft, int) and quota.monthly is not None and quota.soft > quota.monthly:
        yield ConfigFault(
            (*path, "soft"), "is more than monthly", 'expected a smaller amount, or a share such as "90%"'
        )


def _actions(path: Path, quota: Quota) -> Iterator[ConfigFault]:
    if ACTIONS.index(quota.at_hard) >= ACTIONS.index(quota.at_soft):
        return
    hard, soft = shown(quota.at_hard), shown(quota.at_soft)
    if "at_hard" in quota.model_fields_set:
        yield ConfigFault((*path, "at_hard"), f"{hard} is milder than at_soft = {soft}", f"write at_hard = {soft}, too")
    else:
        message = f"{soft} is harsher than at_hard, which is {hard} by default"
        yield ConfigFault((*path, "at_soft"), message, f"add at_hard = {soft}, or choose a milder at_soft")
