"""The command line of scripts/vm."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from guest import build, stock
from guest.cache import ROOT
from guest.errors import GuestError
from guest.kernels import BACKENDS, find, require_processor
from guest.running import NO_KERNEL, run
from guest.share import OWN, Request, is_hidden


def say(text: str) -> None:
    """Say something beside what the command prints."""
    print(f"polywan: {text}", file=sys.stderr, flush=True)


def parser(description: str) -> argparse.ArgumentParser:
    """Return what reads the command line."""
    words = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="scripts/vm [OPTIONS] COMMAND",
    )  # fmt: skip
    words.add_argument("--backend", choices=BACKENDS)
    words.add_argument("--rw", action="append", default=[], metavar="DIR")
    words.add_argument("--cpus", type=int, default=2, metavar="N")
    words.add_argument("--mem", type=int, default=2000, metavar="MB")
    words.add_argument("--seconds", type=float, default=900, metavar="S")
    words.add_argument("--find", action="store_true")
    words.add_argument("--build", action="store_true")
    words.add_argument("command", nargs=argparse.REMAINDER)
    return words


def request(words: argparse.ArgumentParser, options: argparse.Namespace) -> Request:
    """Return what the guest has to do, or end with what is wrong with it."""
    if not options.command:
        words.error("which command?")
    if missing := [path for path in options.rw if not Path(path).is_dir()]:
        words.error(f"--rw {missing[0]}: no such directory")
    writable = [Path(path).resolve() for path in options.rw]
    if is_hidden(ROOT):
        writable.append(ROOT)
    here = Path.cwd()
    if is_hidden(here) and not any(map(here.is_relative_to, writable)):
        words.error(f"the guest has no {here}: its {', '.join(OWN)} are its own; --rw . gives it this directory")
    return Request(
        command=tuple(options.command), directory=here, writable=tuple(writable),
        cpus=options.cpus, mem=options.mem, seconds=options.seconds,
    )  # fmt: skip


def make(backend: str | None) -> None:
    """Make the kernel for a backend."""
    if backend == "qemu":
        stock.fetch(say)
    else:
        build.build(say)


def execute(description: str, argv: list[str]) -> int:
    """Do what the command line says; return the exit status."""
    words = parser(description)
    options = words.parse_args(argv)
    try:
        require_processor()
        if options.build:
            make(options.backend)
        kernel = find(options.backend)
        if options.find or options.build:
            say(f"the guest's kernel is {kernel}")
            print(kernel.path)
            return 0
        wanted = request(words, options)
        say(f"in a guest, {kernel}")
        return run(kernel, wanted)
    except GuestError as error:
        say(str(error))
        return NO_KERNEL


def main(description: str) -> int:
    """Do what the command line says, and end at a signal without leaving anything behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return execute(description, sys.argv[1:])
    except KeyboardInterrupt:
        return 130
