"""The whole of `polywan lab` behind its command line: sandbox, network, daemon, story, report, clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polywan
from polywan.core.errors import PolywanError
from polywan.core.net import FAMILIES
from polywan.lab import sandbox
from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import Lab, build
from polywan.lab.sandbox import LabError
from polywan.lab.scenario import LAB_HOME, Report, Story, configuration, weights_of
from polywan.lab.servers import ECHO_PORT, serve
from polywan.lab.topology import SERVERS
from polywan.lab.view import as_json, audience, print_report

_LOG_TAIL = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line said."""

    uplinks: int
    connections: int
    hold: bool
    as_json: bool
    keep_log: Path | None


def run(options: Options) -> int:
    """Do it all and return the exit code; outside private namespaces the process first replaces itself."""
    # What is started below is this very polywan, which may be in a tree that Python does not know of.
    os.environ["PYTHONPATH"] = str(Path(polywan.__file__).parents[1])
    try:
        if os.environ.get(sandbox.INSIDE) != "1":
            sandbox.enter([sys.executable, "-m", "polywan", *sys.argv[1:]])
        sandbox.prepare()
        # A shell starts background commands with SIGINT ignored, and a polite kill deserves the same clean end.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _interrupt)
        return _run_inside(options)
    except KeyboardInterrupt:
        print("polywan lab: interrupted, everything taken down", file=sys.stderr)
        return 130
    except PolywanError as error:
        print(f"polywan lab: {error}", file=sys.stderr)
        return 1


def _run_inside(options: Options) -> int:
    began = time.monotonic()
    talk = sys.stderr if options.as_json else sys.stdout
    if options.keep_log is not None:
        # A minute of story is not spent on a file that cannot be written.
        _write(options.keep_log, "")
    with build(options.uplinks) as lab:
        text = configuration(lab.topology, weights_of(options.uplinks))
        daemon = DaemonProcess(lab.router, text, LAB_HOME)
        held, failed = False, True
        try:
            with audience(talk, live=talk.isatty()) as watcher:
                watcher.say(f"network built in {1000 * (time.monotonic() - began):.0f} ms")
                report = asyncio.run(Story(lab, daemon, watcher, options.connections).play())
            _publish(report, options)
            held = report.held
            failed = not held
            if options.hold:
                _say_how_to_enter(daemon)
                with suppress(KeyboardInterrupt):
                    asyncio.run(_stand(lab))
        except KeyboardInterrupt:
            failed = False
            raise
        finally:
            daemon.stop()
            _give_log(daemon, options.keep_log, failed=failed)
    return 0 if held else 1


def _publish(report: Report, options: Options) -> None:
    print_report(report, sys.stderr if options.as_json else sys.stdout)
    if options.as_json:
        print(as_json(report), flush=True)


async def _stand(lab: Lab) -> None:
    """Keep the servers answering until Ctrl-C."""
    await serve(lab)
    await asyncio.Event().wait()


def _say_how_to_enter(daemon: DaemonProcess) -> None:
    addresses = [address for family in FAMILIES for address in SERVERS[family]]
    mapped = Path("/proc/self/uid_map").read_text(encoding="ascii").split() != ["0", "0", "4294967295"]
    join = f"nsenter -t {os.getpid()} {'-U --preserve-credentials ' if mapped else ''}-m -n"
    lines = [
        "the network stays up until Ctrl-C; from another terminal:",
        *(f"  {join} ip netns exec {name} bash" for name in ("router", "client", "server")),
        f"in the router, `polywan status` works; the configuration is {daemon.config}",
        f"the servers echo on port {ECHO_PORT}: {', '.join(str(address) for address in addresses)}",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _give_log(daemon: DaemonProcess, keep: Path | None, *, failed: bool) -> None:
    lines = [f"{line.text}\n" for line in daemon.log]
    if keep is not None:
        _write(keep, "".join(lines))
    elif failed and lines:
        print("the end of the daemon's log (--keep-log FILE keeps all of it):", file=sys.stderr)
        sys.stderr.writelines(lines[-_LOG_TAIL:])


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error


def _interrupt(_number: int, _frame: object) -> None:
    # asyncio turns SIGINT, and only that, into an orderly end of its tasks.
    signal.raise_signal(signal.SIGINT)
