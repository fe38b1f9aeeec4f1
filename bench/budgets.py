"""The budgets of polywan's design, as data: what must hold, where a run's result has it, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Results: TypeAlias = Mapping[str, Any]
"""Results by module name, as in report.json."""

_MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a budget; `met` is None when nothing was measured."""

    met: bool | None
    measured: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One bound.

    Attributes:
        value: finds the measured number in a run's results; None when it is not there.
        timed: the number depends on the machine and its load; the others must hold anywhere, always.
    """

    what: str
    limit: float
    unit: str
    value: Callable[[Results], float | None]
    timed: bool = True

    @property
    def bound(self) -> str:
        """The bound in words, as ``≤ 60 ms``."""
        return f"≤ {_number(self.limit)} {self.unit}".rstrip()

    def judge(self, results: Results) -> Verdict:
        """Hold results against the bound."""
        value = self.value(results)
        if value is None:
            return Verdict(met=None, measured="-", text="not measured")
        measured = f"{_number(value)} {self.unit}".rstrip()
        if value <= self.limit:
            return Verdict(met=True, measured=measured, text="yes")
        percent = 100 * (value / self.limit - 1) if self.limit else 0.0
        by = f" by {percent:.0f} %" if percent >= 1 else " by less than 1 %" if percent else ""
        return Verdict(met=False, measured=measured, text=f"**missed{by}**")


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"


def at(*path: str) -> Callable[[Results], float | None]:
    """Return the finder of the number at the end of a path of keys."""

    def find(results: Results) -> float | None:
        found: Any = results
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
        return float(found) if isinstance(found, int | float) else None

    return find


def with_at_least(
    number: int, *counted: str, value: Callable[[Results], float | None]
) -> Callable[[Results], float | None]:
    """Return a finder that finds nothing where the number at the end of `counted` is smaller: that was another task."""
    count = at(*counted)
    return lambda results: value(results) if (count(results) or 0) >= number else None


def packet(kind: str, uplinks: int) -> Callable[[Results], float | None]:
    """Return the finder of the cost of a packet, relative to bare forwarding, in the results of `dataplane`."""

    def find(results: Results) -> float | None:
        rows = results.get("dataplane", {}).get("rows", ())
        wanted = ("polywan", kind, uplinks)
        return next((float(r["ratio"]) for r in rows if (r["design"], r["kind"], r["uplinks"]) == wanted), None)

    return find


def most(module: str, section: str, *path: str) -> Callable[[Results], float | None]:
    """Return the finder of the largest number that the entries of a section have at a path."""

    def find(results: Results) -> float | None:
        entries = results.get(module, {}).get(section, {})
        found = [value for name in entries if (value := at(module, section, name, *path)(results)) is not None]
        return max(found, default=None)

    return find


def _megabytes(uplinks: int) -> Callable[[Results], float | None]:
    bytes_of = at("footprint", str(uplinks), "rss_bytes")

    def find(results: Results) -> float | None:
        found = bytes_of(results)
        return None if found is None else found / _MEGABYTE

    return find


def _sum(module: str, section: str, *keys: str) -> Callable[[Results], float | None]:
    def find(results: Results) -> float | None:
        found = [at(module, section, key)(results) for key in keys]
        numbers = [value for value in found if value is not None]
        return sum(numbers) if len(numbers) == len(keys) else None

    return find


def _packets(established: float, new: float = 1.3) -> tuple[Budget, ...]:
    kinds = (
        ("out", "established packet out", established),
        ("in", "established packet in", established),
        ("new", "new flow", new),
    )
    return tuple(
        Budget(
            what=f"{what}, {uplinks} uplinks: router CPU against bare forwarding with masquerade",
            limit=limit,
            unit="x",
            value=packet(kind, uplinks),
        )
        for kind, what, limit in kinds
        for uplinks in (2, 53, 200)
    )


def _steps(step: str, what: str, limits: Mapping[int, float]) -> tuple[Budget, ...]:
    return tuple(
        Budget(
            what=f"{what}, {uplinks} uplinks",
            limit=limit,
            unit="ms",
            value=at("control", "sizes", str(uplinks), step, "median"),
        )
        for uplinks, limit in limits.items()
    )


def _footprint(uplinks: int, megabytes: float, percent: float) -> tuple[Budget, ...]:
    name = f"idle daemon, {uplinks} uplinks probed every second"
    return (
        Budget(what=f"{name}: resident memory", limit=megabytes, unit="MB", value=_megabytes(uplinks)),
        Budget(
            what=f"{name}: share of one processor",
            limit=percent,
            unit="%",
            value=at("footprint", str(uplinks), "cpu_percent"),
        ),
    )


def _counts() -> tuple[Budget, ...]:
    return (
        Budget(
            what="one uplink down: operations written",
            limit=1,
            unit="",
            value=most("control", "sizes", "writes", "down", "writes"),
            timed=False,
        ),
        Budget(
            what="one weight changed: operations written",
            limit=1,
            unit="",
            value=most("control", "sizes", "writes", "weight", "writes"),
            timed=False,
        ),
        Budget(
            what="reload without a change: operations written",
            limit=0,
            unit="",
            value=most("control", "sizes", "writes", "reload", "writes"),
            timed=False,
        ),
        Budget(
            what="reload of the real daemon without a change: plans carried out",
            limit=0,
            unit="",
            value=most("control", "daemon", "reload_writes"),
            timed=False,
        ),
        Budget(
            what="reloads under load: packets and connections lost",
            limit=0,
            unit="",
            value=_sum("hitless", "counts", "lost_out", "lost_in", "lost_new"),
            timed=False,
        ),
        Budget(
            what="reloads under load: packets by the wrong uplink or with the wrong address",
            limit=0,
            unit="",
            value=_sum("hitless", "counts", "wrong_uplink", "wrong_source"),
            timed=False,
        ),
    )


def _failover() -> tuple[Budget, ...]:
    kinds = (
        ("carrier", "carrier loss: the last new connection that it hurt began after", 10),
        ("silence", "silent loss, default probing: the same", 3000),
        ("silence_fast", "silent loss, 200 ms probing: the same", 1000),
    )
    return tuple(
        Budget(what=what, limit=limit, unit="ms", value=at("failover", kind, "last_hurt_ms", "max"))
        for kind, what, limit in kinds
    )


def _tracking() -> tuple[Budget, ...]:
    forms = {"text": "`polywan flows`", "json": "`polywan flows --json`"}
    listing = (
        Budget(
            what=f"{command} with 60 000 connections, {'unsorted' if order == 'none' else f'by {order}'}",
            limit=1000,
            unit="ms",
            value=with_at_least(
                60_000, "tracking", "flows", "entries", value=at("tracking", "flows", form, order, "median")
            ),
        )
        for form, command in forms.items()
        for order in ("none", "bytes", "age", "client", "uplink")
    )
    freeing = Budget(
        what="carrier loss: verdict to the last reset of 10 000 idle connections",
        limit=500,
        unit="ms",
        value=with_at_least(
            10_000, "tracking", "freeing", "connections", value=at("tracking", "freeing", "last_ms", "median")
        ),
    )
    return (*listing, freeing)


def _streams() -> tuple[Budget, ...]:
    name = "100 clients follow 53 uplinks that flap"
    bounds = (
        ("lost carrier to the last client, median", 100, "ms", ("last_ms", "median")),
        ("the slowest short question meanwhile", 100, "ms", ("answer_ms", "max")),
        ("clients that were sent away", 0, "", ("ended",)),
    )
    return tuple(
        Budget(
            what=f"{name}: {what}",
            limit=limit,
            unit=unit,
            value=with_at_least(100, "streams", "clients", value=at("streams", *path)),
        )
        for what, limit, unit, path in bounds
    )


def connected(results: Results) -> float | None:
    """Find how many times longer a TCP connection takes than through bare forwarding, in the results of `dataplane`."""
    rows = results.get("dataplane", {}).get("tcp", ())
    return next((1 / float(row["ratio"]) for row in rows if row["design"] == "polywan" and row["ratio"]), None)


BUDGETS: Final = (
    *_packets(established=1.25),
    Budget(
        what="TCP connections, 53 uplinks: time for each against bare forwarding with masquerade",
        limit=round(1 / 0.93, 3),
        unit="x",
        value=connected,
    ),
    *_steps("full_ms", "full apply from nothing", {53: 40, 200: 120}),
    *_steps("down_ms", "one uplink down, event to kernel", {2: 5, 53: 4, 200: 12}),
    *_steps("weight_ms", "one weight changed, decision to kernel", {2: 5, 53: 4}),
    *_counts(),
    *_failover(),
    *_footprint(8, 55, 0.5),
    *_footprint(53, 55, 2),
    *(
        Budget(
            what=f"`polywan status` from end to end, {uplinks} uplinks",
            limit=150,
            unit="ms",
            value=at("footprint", str(uplinks), "status_ms", "median"),
        )
        for uplinks in (8, 53)
    ),
    *_tracking(),
    *_streams(),
)
"""In the order of the report."""

WITH_FLOWTABLES: Final = _packets(established=1.0)
"""What must hold where established connections take the fast path; bare forwarding has none."""
