"""Write the files that this version keeps between two starts: `make state-files`, once before each release.

They are kept in tests/data/state for ever: each later version has to understand them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from polywan import __version__
from polywan.api.codec import decode
from polywan.api.events import LinkEvent
from polywan.core.journal.changes import Standing
from polywan.core.journal.ends import Ends
from polywan.core.measurements.points import Point
from polywan.core.measurements.volumes import UplinkBytes
from polywan.core.net import Family
from polywan.core.policy.uplink_state import UplinkState
from polywan.core.quota.counting import Seen
from polywan.core.quota.usage import QuotaKind, Usage
from polywan.core.status.rates import Counters
from polywan.core.status.stored_standing import stored
from polywan.core.status.tally import Bytes, Count
from polywan.core.trial.history import Entry
from polywan.core.trial.texts import digest_of_all
from polywan.daemon import store
from polywan.daemon.history import History
from polywan.daemon.journal import Journal
from polywan.daemon.measurements.store import Batch, Store
from polywan.daemon.tasks.quotas import QuotaKeeper
from polywan.web.token_files import changing
from polywan.web.tokens import Token, digest_of
from support.memories import MEMORY

FOLDER: Final = Path(__file__).parents[1] / "data/state"

STANDING: Final = Standing(
    uplink="fibre",
    interface="wan1",
    state=UplinkState.UP,
    reason="all targets answer",
    families={Family.V4: True},
    ends={Family.V4: Ends("192.0.2.2", "192.0.2.1")},
    since=100.0,
    ends_since=50.0,
)
COUNT: Final = Count(now=Counters(5, 1000, 100), earlier=Bytes(7, 8), marks={"state": Bytes(9, 10), "ends": None})

TEXTS: Final = {"polywan.toml": '[uplinks.fibre]\ninterface = "wan1"\n', "conf.d/more.toml": "# nothing\n"}
HISTORY: Final = (
    Entry(time=1_795_852_860.0, user="alice", how="trial", changes=("1 rule more",), digest="0" * 64, files=None),
    Entry(time=1_795_852_800.5, user="root", how="start", changes=(), digest=digest_of_all(TEXTS), files=TEXTS),
)

TOKENS: Final = (
    Token(name="phone", digest=digest_of("pw_phone"), scope="read", created=1_795_852_800.0, expires=None),
    Token(name="laptop", digest=digest_of("pw_laptop"), scope="act", created=1_795_852_800.5, expires=1_803_628_800.5),
)


MEASURED: Final = Batch(
    seconds={1_795_852_800: {"fibre": Point(rx=1000, tx=100, rx_max=1000, tx_max=100, known=1, up=1)}},
    volumes={(1_795_849_200, "fibre"): UplinkBytes(1000, 100, 10)},
    clients={"2026-11": {"192.0.2.7": Bytes(900, 90)}},
    boot="boot",
    devices={"wan1": Counters(5, 1000, 100)},
)


def entries() -> list[tuple[float, LinkEvent]]:
    """Two changes of an uplink."""
    nothing = dict.fromkeys(LinkEvent.__fields__)
    lost = {
        "id": 1,
        "time": "2026-11-30T08:00:00.000+00:00",
        "uplink": "fibre",
        "interface": "wan1",
        "event": "state",
        "state": "down",
        "reason": "no carrier",
        "lasted_s": 12.5,
    }
    back = {**lost, "id": 2, "time": "2026-11-30T08:01:00.000+00:00", "state": "up", "reason": "all targets answer"}
    return [(1_795_852_800.0 + 60 * n, decode(LinkEvent, {**nothing, **one})) for n, one in enumerate((lost, back))]


QUOTAS: Final = {
    "lte": Usage(
        kind=QuotaKind.MONTHLY,
        begins=1_794_700_800.0,
        ends=1_797_292_800.0,
        next_day="2026-12-15",
        counted=123_456,
        reading=37_200_000_000,
        reading_at=1_795_852_800.5,
        bought=10_000_000_000,
        first=1_790_000_000.0,
        days=((20_783, 5), (20_784, 6)),
        seen=Seen("wwan0", 3, "boot", 1000, 100),
    ),
    "sat": Usage(kind=QuotaKind.PREPAID, begins=1_795_852_800.0, first=1_795_852_800.0),
}


def main() -> None:
    """Write the folder of this version; its files are replaced."""
    folder = FOLDER / __version__
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    store.save(folder, MEMORY)
    journal = Journal(folder)
    journal.append(entries(), [stored(STANDING, COUNT, "boot", 0.0)])
    journal.close()
    History(folder)._save(HISTORY)
    QuotaKeeper(folder)._write(QUOTAS)
    with changing(folder, None) as tokens:
        tokens.extend(TOKENS)
    measurements = Store(folder)
    measurements.write(MEASURED)
    measurements.close()


if __name__ == "__main__":
    main()
