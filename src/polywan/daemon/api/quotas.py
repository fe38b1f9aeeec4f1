"""What `polywan quota` enters: what the provider says of an uplink's quota, and what was bought."""

from __future__ import annotations

import time

from pydantic_core import PydanticCustomError

from polywan.api.views.quota import QuotaChanged, SetQuota
from polywan.config.faults import shown
from polywan.config.kinds.volumes import Volume
from polywan.config.model.quota import Quota
from polywan.core.errors import ControlError
from polywan.core.quota.report import quota_status
from polywan.core.quota.usage import Usage
from polywan.daemon.api.unknown import unknown
from polywan.daemon.loop import Daemon
from polywan.daemon.tasks.quotas import QuotaKeeper

_MOST_DIGITS = 20


class QuotaEntries:
    """Entries by hand, over a running loop."""

    def __init__(self, daemon: Daemon, keeper: QuotaKeeper) -> None:
        self._daemon = daemon
        self._keeper = keeper

    async def enter(self, asked: SetQuota) -> QuotaChanged:
        """Enter it, and answer once that is in force and kept.

        Raises:
            ControlError: no such uplink, or one without a quota (404), no such amount, or none at all (400).
        """
        name = asked.name
        reading, bought = _amount("reading", asked.reading, Volume(0)), _amount("bought", asked.bought, Volume())
        if reading is None and bought is None:
            raise ControlError("expected reading or bought, with an amount of data such as 37.2GB", 400)
        self._known(name)
        await self._keeper.enter(name, reading, bought)
        usage, quota = self._known(name)
        if usage is None:
            raise ControlError(f"uplink {shown(name)} has no quota any more", 404)
        problem = self._keeper.problem
        return QuotaChanged(
            uplink=name,
            quota=quota_status(usage, quota, time.time(), self._daemon.state.known.zone),
            warnings=(f"in force, but lost on a restart: {problem}",) if problem else (),
            saved=not problem,
        )

    def _known(self, name: str) -> tuple[Usage | None, Quota]:
        known = self._daemon.state.known
        if known.config is None or name not in known.config.uplinks:
            raise unknown("uplink", name, known.config.uplinks if known.config else ())
        quota = known.config.uplinks[name].quota
        if quota is None:
            hint = f"add [uplinks.{name}.quota] to the configuration"
            raise ControlError(f"uplink {shown(name)} has no quota: {hint}", 404)
        return known.quotas.usages.get(name), quota


def _amount(key: str, text: str | None, kind: Volume) -> int | None:
    if text is None:
        return None
    try:
        # A plain number is bytes, as in the file, where it stands without quotes.
        plain = text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS
        return int(kind.parse(int(text) if plain else text))
    except PydanticCustomError as error:
        raise ControlError(f"{key}: {(error.context or {})['message']}", 400) from error
