"""A report as one page that needs nothing but itself, without scripts, and prints on one sheet."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from polywan.cli.report_text import MOST_IN_REPORT, Month, cut, moment, percent, times, worst
from polywan.cli.units import size
from polywan.core.measurements.report import Day, UplinkReport
from polywan.core.words import counted, lasted

_STYLE: Final = """
@page { size: A4; margin: 11mm 15mm; }
* { box-sizing: border-box; }
body { font: 13px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c2330; background: #fff;
  max-width: 46rem; margin: 2rem auto; padding: 0 1rem; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
header { display: flex; justify-content: space-between; align-items: baseline; border-bottom: 2px solid #1c2330;
  padding-bottom: .4rem; margin-bottom: 1rem; }
h1 { font-size: 1.45rem; margin: 0; letter-spacing: -.01em; }
header p { margin: 0; color: #5b6678; text-align: right; }
section { break-inside: avoid-page; margin: 0 0 1.3rem; }
h2 { font-size: 1.05rem; margin: 0; }
.sum { display: flex; gap: 1.2rem; align-items: center; margin: .1rem 0 .5rem; }
.big { font-size: 1.7rem; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.sum p { margin: 0; color: #3c4658; }
.days { display: flex; gap: 2px; height: 34px; margin: .2rem 0 .1rem; }
.days i { flex: 1; display: flex; flex-direction: column-reverse; background: repeating-linear-gradient(45deg, #eef0f4,
  #eef0f4 3px, #dfe3ea 3px, #dfe3ea 5px); border-radius: 2px; overflow: hidden; }
.days b { display: block; width: 100%; }
.up { background: #2f9e66; } .degraded { background: #e5a823; }
.down { background: #c9303e; } .off { background: #9aa5b5; }
.scale { display: flex; justify-content: space-between; color: #5b6678; font-size: .8rem; }
.key { color: #5b6678; font-size: .85rem; margin: 0 0 1rem; }
.key span { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin: 0 .3em 0 .9em; }
.unknown { background: repeating-linear-gradient(45deg, #eef0f4, #eef0f4 3px, #c9cfd9 3px, #c9cfd9 5px); }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 0; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: #5b6678; font-size: .8rem; border-bottom: 1px solid #c5ccd8; }
th, td { padding: .18rem .6rem .18rem 0; vertical-align: top; }
td { border-bottom: 1px solid #edf0f4; overflow-wrap: anywhere; }
td { white-space: nowrap; }
td:last-child { white-space: normal; width: 100%; }
.clients { columns: 2; column-gap: 2.5rem; margin-top: .4rem; }
.clients dl { grid-template-columns: 1fr max-content; margin: 0; break-inside: avoid; }
.clients dt { color: inherit; overflow-wrap: anywhere; }
.more { color: #5b6678; margin: .25rem 0 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0 0; }
dt { color: #5b6678; } dd { margin: 0; }
footer { color: #5b6678; font-size: .8rem; border-top: 1px solid #c5ccd8; padding-top: .4rem; }
.problem { border-left: 3px solid #c9303e; padding-left: .6rem; }
@media print { html { font-size: 11px; } body { margin: 0; padding: 0; max-width: none; font-size: 10px; }
  .days { height: 26px; } }
"""

_STATES: Final = ("up", "degraded", "down", "off")


def page(month: Month) -> str:
    """Return the page."""
    return "".join(_parts(month))


def _parts(month: Month) -> Iterator[str]:
    names = ", ".join(one.name for one in month.uplinks[:3]) + (" …" if len(month.uplinks) > 3 else "")
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Uplinks of {escape(month.host)}, {escape(month.name)}</title><style>{_STYLE}</style></head><body>"
    yield f"<header><h1>Uplink availability, {escape(month.name)}</h1>"
    yield f"<p>{escape(names)}<br>{escape(month.host)}</p></header>"
    for problem in month.problems:
        yield f'<p class="problem">Not complete: {escape(problem)}</p>'
    for one in month.uplinks:
        yield from _uplink(one, month.most)
    yield _KEY
    if month.clients:
        yield from _clients(month)
    yield f"<footer>Made {escape(month.made)} by polywan. {_HOW}</footer></body></html>\n"


_HOW: Final = (
    "Measured by probes every few seconds, the state of the link and the kernel's byte counters. Availability is the "
    "part of the known time in which the link could carry connections. Time in which nothing was measured, or in which "
    "the link was out of use by order, counts neither way. Times are local."
)

_KEY: Final = (
    '<p class="key">One bar for each day:'
    '<span class="up"></span>up<span class="degraded"></span>degraded<span class="down"></span>down'
    '<span class="off"></span>out of use by order<span class="unknown"></span>unknown</p>'
)


def _uplink(one: UplinkReport, most: int) -> Iterator[str]:
    total = one.total
    yield f"<section><h2>{escape(one.name)}</h2>"
    yield f'<div class="sum"><div class="big">{escape(percent(one.availability))}</div>'
    outages = one.outages
    longest = max((outage.seconds for outage in outages), default=0.0)
    said = counted(len(outages), "outage") + (f", the longest {lasted(longest)}" if outages else "")
    yield f"<p>{escape(said)}<br>{escape(times(total))}</p></div>"
    yield from _days(one.days)
    yield from _outages(one, most)
    yield "<dl>"
    if one.volume is not None:
        volume = one.volume
        moved = f"{size(volume.rx_bytes)} received, {size(volume.tx_bytes)} sent"
        yield f"<dt>volume</dt><dd>{escape(moved)}; probes {escape(size(volume.probe_bytes))} of these</dd>"
    for title, hours in worst(one):
        yield f"<dt>{escape(title)}</dt><dd>{escape(hours)}</dd>"
    yield "</dl></section>"


def _days(days: tuple[Day, ...]) -> Iterator[str]:
    if not days:
        return
    yield '<div class="days">'
    for day in days:
        lasting = sum(day[1:]) or 1.0
        parts = zip(_STATES, day[1:5], strict=True)
        # A short outage would be less than a pixel.
        heights = [(state, max(6.0, 100 * seconds / lasting)) for state, seconds in parts if seconds]
        bars = "".join(f'<b class="{state}" style="flex:{height:.1f} 0 0"></b>' for state, height in heights)
        unknown = max(0.0, 100 * day.unknown / lasting)
        yield f'<i title="{escape(f"{day.date}: {times(day)}")}">{bars}<b style="flex:{unknown:.1f} 0 0"></b></i>'
    yield f'</div><div class="scale"><span>{escape(days[0].date)}</span><span>{escape(days[-1].date)}</span></div>'


def _outages(one: UplinkReport, most: int) -> Iterator[str]:
    shown, rest = cut(one.outages, most)
    if not shown:
        return
    yield "<table><thead><tr><th>from</th><th>lasted</th><th>evidence</th></tr></thead><tbody>"
    for outage in shown:
        length = lasted(outage.seconds) + ("" if outage.until else ", lasts")
        reason = outage.reason or "began before this month"
        yield f"<tr><td>{escape(moment(outage.since))}</td><td>{escape(length)}</td><td>{escape(reason)}</td></tr>"
    yield "</tbody></table>"
    if rest:
        yield f'<p class="more">{escape(rest)}</p>'


def _clients(month: Month) -> Iterator[str]:
    yield '<section><h2>Clients with most bytes</h2><div class="clients">'
    for client in month.clients[:MOST_IN_REPORT]:
        moved = f"{size(client.rx_bytes)} received, {size(client.tx_bytes)} sent"
        yield f"<dl><dt>{escape(client.client)}</dt><dd>{escape(moved)}</dd></dl>"
    yield "</div>"
    if (more := len(month.clients) - MOST_IN_REPORT) > 0:
        yield f'<p class="more">and {counted(more, "client")} with less</p>'
    yield "</section>"
