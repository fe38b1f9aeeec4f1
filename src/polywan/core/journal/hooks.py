"""Which hooks follow from changes of uplinks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from polywan.core.evolve import replace
from polywan.core.journal.changes import Change, Standing, Standings, What, same_ends
from polywan.core.policy.uplink_state import OUT, SERVING, UplinkState

ALL_DOWN: Final = "all_down"
ANY_UP: Final = "any_up"
QUOTA_HOOK: Final = "quota"


def with_hooks(
    before: Standings, after: Standings, changes: tuple[Change, ...], lost: Collection[str] | None
) -> tuple[Change, ...]:
    """Return the changes with the hooks that are called for them.

    Args:
        before: what was recorded of all uplinks before these changes.
        after: what is recorded after them.
        changes: the changes of one decision.
        lost: at a daemon's first decision, the uplinks lost while none ran (none after a boot); later None.
    """
    named = [replace(change, hooks=tuple(_own(change, lost))) for change in changes]
    served = any(standing.state in SERVING for standing in before.values())
    serves = any(standing.state in SERVING for standing in after.values())
    if served and not serves:
        ended = [
            i for i, c in enumerate(named) if _serves(c.before) and (c.what is not What.FOUND or "down" in c.hooks)
        ]
        _add(named, ended, ALL_DOWN)
    elif serves and before and not served:
        _add(named, [i for i, change in enumerate(named) if _serves(change.after)][:1], ANY_UP)
    return tuple(named)


def of_quota(standing: Standing, reason: str, now: float) -> Change:
    """Return the change of an uplink whose quota has come to another level, at a monotonic time."""
    return Change(
        what=What.QUOTA, at=now, before=standing, after=standing, reason=reason, lasted=None, hooks=(QUOTA_HOOK,)
    )


def _own(change: Change, lost: Collection[str] | None) -> list[str]:
    """Return the hooks of one change, in the order in which they are called."""
    if change.after is None or change.what is What.RENAMED:
        return []
    was, now = change.before.state if change.before else None, change.after.state
    hooks = []
    if now in SERVING and was not in SERVING:
        hooks.append("up")
    elif now is not was and now in SERVING:
        hooks.append("recovered" if now is UplinkState.UP else "degraded")
    elif now in OUT and was in SERVING:
        hooks += ["down"] if lost is None or change.after.uplink in lost else []
    elif was not in (now, None) and now not in OUT:
        hooks.append("disabled")
    if _other_ends(change):
        hooks.append("address")
    return hooks


def _other_ends(change: Change) -> bool:
    before, after = change.before.ends if change.before else {}, change.after.ends if change.after else {}
    if change.what is What.FOUND:
        # An address that is not there yet at a start is no other one.
        after = {family: ends for family, ends in after.items() if ends.address is not None}
        before = {family: ends for family, ends in before.items() if family in after}
    return not same_ends(before, after)


def _serves(standing: Standing | None) -> bool:
    return standing is not None and standing.state in SERVING


def _add(changes: list[Change], places: list[int], hook: str) -> None:
    """Have the last of these changes call one more hook."""
    if places:
        last = changes[places[-1]]
        changes[places[-1]] = replace(last, hooks=(*last.hooks, hook))
