"""Run the benchmarks in private namespaces and write the report.

Usage: python bench/run.py [--quick] [--only control,footprint] [--out DIRECTORY] [--write-docs]

Exit code 0 when every module finished and every budget that time has no part in was met, 1 otherwise,
130 when interrupted. A missed budget in time is in the report, and no failure: the machine may have been busy.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, cast

from report import SCHEMA, broken, guested, left_out, render
from stats import environment

from polywan import __version__
from polywan.core.errors import PolywanError
from polywan.lab import sandbox

LIMITS: Final = {
    "dataplane": 400,
    "control": 240,
    "failover": 150,
    "footprint": 150,
    "hitless": 90,
    "tracking": 90,
    "streams": 120,
}
"""Seconds after which a module is given up, by name; in this order they run."""

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs" / "benchmarks.md"


class Module(Protocol):
    """What a measuring module offers."""

    def measure(self, *, quick: bool, note: Callable[[str], None]) -> dict[str, Any]:
        """Measure; `note` tells what is under way."""
        ...

    def markdown(self, result: dict[str, Any]) -> str:
        """Return the section of the report."""
        ...


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work, are the counts right?")
    parser.add_argument("--only", default="", help=f"some modules only, of {','.join(LIMITS)}")
    parser.add_argument("--out", type=Path, help="where to write report.json and report.md")
    parser.add_argument("--write-docs", action="store_true", help="copy the report to docs/benchmarks.md")
    parser.add_argument("--guest", type=Path, help="report.json of a guest, for the end of docs/benchmarks.md")
    options = parser.parse_args(argv)
    if options.write_docs and (options.quick or options.only):
        parser.error("--write-docs wants a whole run: without --quick and --only")
    if options.write_docs != (options.guest is not None):
        parser.error("--write-docs and --guest go together: docs/benchmarks.md ends with the report of a guest")
    if options.guest is not None and not options.guest.is_file():
        parser.error(f"--guest {options.guest}: no such file; `make bench-vm` writes build/bench-vm/report.json")
    options.only = tuple(filter(None, options.only.split(","))) or tuple(LIMITS)
    if unknown := [name for name in options.only if name not in LIMITS]:
        parser.error(f"no such module: {', '.join(unknown)}; there are {', '.join(LIMITS)}")
    options.out = options.out or ROOT / "build" / ("bench-quick" if options.quick else "bench")
    return options


def main(argv: Sequence[str]) -> int:
    """Enter the sandbox if need be, run, report; return the exit code."""
    options = _arguments(argv)
    # Python started by a benchmark may keep its byte code: nobody runs a daemon without.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        if os.environ.get(sandbox.INSIDE) != "1":
            sandbox.enter([sys.executable, __file__, *argv])
        sandbox.prepare()
    except PolywanError as error:
        print(f"bench: SKIPPED, nothing was measured: {error}", file=sys.stderr)
        return 0 if options.quick else 1
    # A shell starts background commands with SIGINT ignored, and a polite kill deserves the same clean end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _time_is_up)
    try:
        report, sections = _run(options.only, quick=options.quick)
    except KeyboardInterrupt:
        print("bench: interrupted, everything taken down, nothing written", file=sys.stderr)
        return 130
    _write(report, sections, options.out)
    if options.write_docs:
        _publish(report, sections, options.guest)
    wrong = broken(report)
    for line in [*left_out(report), *wrong]:
        print(f"bench: {line}", file=sys.stderr)
    print(f"bench: {'FAILED' if wrong else 'done'}, see {options.out / 'report.md'}", file=sys.stderr)
    return 1 if wrong else 0


def _run(names: Sequence[str], *, quick: bool) -> tuple[dict[str, Any], dict[str, str]]:
    began, load = time.monotonic(), os.getloadavg()[0]
    results: dict[str, Any] = {}
    sections: dict[str, str] = {}
    failed: dict[str, str] = {}

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    for name in (name for name in LIMITS if name in names):
        say(name)
        try:
            with _limited(LIMITS[name]):
                module = cast("Module", importlib.import_module(name))
                results[name] = module.measure(quick=quick, note=_mute if quick else lambda text: say(f"  {text}"))
                sections[name] = module.markdown(results[name])
        except Exception as error:  # noqa: BLE001 - the others still have something to say
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"  FAILED: {failed[name]}")
    report = {
        "schema": SCHEMA,
        "quick": quick,
        "version": __version__,
        "revision": _revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 1),
        "load": [load, os.getloadavg()[0]],
        "environment": environment(),
        "results": results,
        "failed": failed,
    }
    return report, sections


def _publish(report: dict[str, Any], sections: dict[str, str], guest: Path) -> None:
    known = json.loads(guest.read_text(encoding="utf-8"))
    results = known["results"]
    texts = {name: cast("Module", importlib.import_module(name)).markdown(results[name]) for name in results}
    DOCS.write_text(render(report, sections, "../bench/README.md", list(guested(known, texts))), encoding="utf-8")
    _give(DOCS)


def _mute(_: str) -> None:
    """Leave out the details."""


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Give up with TimeoutError after that many seconds (setitimer(2))."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _time_is_up(*_: object) -> NoReturn:
    raise TimeoutError("took too long and was given up")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _revision() -> str:
    """Name the commit, with a plus when files differ from it; empty outside a checkout."""
    argv = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _write(report: dict[str, Any], sections: dict[str, str], out: Path) -> None:
    made = [parent for parent in (out, *out.parents) if not parent.exists()]
    out.mkdir(parents=True, exist_ok=True)
    files = {
        "report.json": json.dumps(report, indent=1) + "\n",
        "report.md": render(report, sections, os.path.relpath(ROOT / "bench" / "README.md", out)),
    }
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
        _give(out / name)
    for folder in made:
        _give(folder)


def _give(path: Path) -> None:
    """Root working in somebody's checkout leaves nothing there which its owner cannot change."""
    if os.geteuid() == 0 and path.is_relative_to(ROOT):
        owner = ROOT.stat()
        shutil.chown(path, owner.st_uid, owner.st_gid)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
