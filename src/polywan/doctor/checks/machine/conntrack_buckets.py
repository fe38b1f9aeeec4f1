"""The hash table of connection tracking is too small for its entries: each packet walks a long chain.

Every connection is in two chains, one for each direction. The kernel's own default is as many buckets as entries, and
was a quarter of that before Linux 5.15, so that a chain has 2 to 8 entries when the table is full. Since 5.15 it
refuses a connection whose chain has more than some 50 to 80 (`chaintoolong`, in /proc `chainlength`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix
from polywan.core.plan.cautions import TRACKING_COUNT, TRACKING_LIMIT
from polywan.doctor.box import Box
from polywan.doctor.checks.keep import TRACKING_AT_BOOT, set_and_keep

_BUCKETS: Final = "net/netfilter/nf_conntrack_buckets"
_NAME: Final = _BUCKETS.replace("/", ".")
_LONG_CHAIN: Final = 8.0
"""Entries of a chain, as many as in a full table by the old defaults; more is nobody's default."""
_VERY_LONG: Final = 32.0


def check(box: Box) -> Iterator[Finding]:
    """Find long chains, now or when the table is full."""
    count, most, buckets = (box.setting(path) for path in (TRACKING_COUNT, TRACKING_LIMIT, _BUCKETS))
    if count is None or not most or not buckets:
        return
    now, full = 2 * count / buckets, 2 * most / buckets
    refused = box.machine.tracking.get("chainlength", 0)
    if now > _LONG_CHAIN or (refused and full > _LONG_CHAIN):
        yield _finding(box, "warning", f"{buckets} hash buckets are too few for {count} tracked connections")
    elif full > _VERY_LONG:
        yield _finding(box, "note", f"{buckets} hash buckets are too few for a table of {most} connections")


def _finding(box: Box, severity: str, what: str) -> Finding:
    count, most, buckets = (box.setting(path) or 0 for path in (TRACKING_COUNT, TRACKING_LIMIT, _BUCKETS))
    refused = box.machine.tracking.get("chainlength", 0)
    evidence = [
        f"{_NAME} = {buckets}",
        f"{TRACKING_COUNT.replace('/', '.')} = {count}, {TRACKING_LIMIT.replace('/', '.')} = {most}",
        f"a chain has {2 * count / buckets:.1f} entries now, and {2 * most / buckets:.1f} when the table is full",
    ]
    if refused:
        evidence.append(f"{refused} new connections were refused since boot for a chain too long (conntrack -S)")
    return Finding(
        check="conntrack-buckets",
        severity=severity,
        what=what,
        evidence=tuple(evidence),
        consequence="packets cost more CPU time the more connections there are, "
        "and new connections fail where a chain is too long",
        fix=_fix(box, most),
    )


def _fix(box: Box, most: int) -> Fix:
    how = f"set {_NAME} to {most}, one for each entry ({most * 8 // 2**20} MiB)"
    if box.machine.tracking_fixed:
        return Fix(how=f"{how}; only the host of this container or network namespace can do so")
    return Fix(how=how, steps=(*set_and_keep({_BUCKETS: str(most)}), TRACKING_AT_BOOT))
