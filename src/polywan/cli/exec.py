"""`polywan exec`: run a program by one uplink."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from polywan.api import calls
from polywan.api.requests import OfUplink
from polywan.api.uplinks import ViaGroup
from polywan.cli import options
from polywan.client import Client
from polywan.client import runtime_dir as resolve
from polywan.core.errors import ControlError, MissingFeature, NotPermitted, PolywanError
from polywan.core.world.lookups import via_group

CGROUP_HOME = Path("/sys/fs/cgroup")
"""Below it every control group is; whatever else the daemon names is not written to."""

NEEDS_ROOT = "exec needs root: sudo polywan exec --via NAME -- sudo -u USER CMD runs CMD as USER"


@click.command(name="exec", context_settings={"allow_interspersed_args": False})
@click.option(
    "--via", "uplink", metavar="NAME", required=True, shell_complete=options.uplinks, help="The uplink to use."
)
@options.runtime
@click.argument("argv", metavar="CMD [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(uplink: str, runtime_dir: Path | None, argv: tuple[str, ...]) -> None:
    """Run CMD so that all its new connections, and those of its children, leave by one uplink.

    They never leave by another: while the uplink is down, or has no IPv6, they are refused at once. Destinations with
    a specific route in the main table, such as the LAN, stay reachable. CMD replaces this command: same process,
    terminal, signals and exit code. Needs root.

    Another program (systemd-resolved, dnsmasq) often looks up the names, and its queries may leave by any uplink.

    Exits with 127 when CMD is not found, 126 when it cannot be started, otherwise with the exit code of CMD.

    \b
    Examples:
      sudo polywan exec --via lte curl https://example.net
      sudo polywan exec --via fibre -- ping -c3 2001:db8::1
      sudo polywan exec --via dsl sudo -u alice rsync -a alice@backup.example:data .
    """
    bind(Client(resolve(runtime_dir)), uplink)
    replace_by(argv)


def bind(client: Client, uplink: str) -> None:
    """Put this process into the control group of an uplink, once the kernel asks for that group.

    Raises:
        ControlError: no daemon answers, or there is no such uplink.
        NotPermitted: this user may not.
        MissingFeature: control groups cannot be used here.
        PolywanError: the daemon could not bring the rule in force.
    """
    answer = _ask(client, uplink)
    directory = Path(answer.directory)
    safe = directory.is_relative_to(CGROUP_HOME) and ".." not in directory.parts
    if not safe or directory.parts[-2:] != Path(via_group(uplink)).parts:
        raise PolywanError(f"the daemon named an unexpected control group: {directory}")
    if answer.group is None:
        _make(directory)
        answer = _ask(client, uplink)
    _check(answer, directory)
    if answer.state not in ("up", "degraded"):
        refused = "" if answer.families else "; its new connections are refused until it is up"
        click.echo(f"warning: {uplink} is {answer.state}: {answer.reason}{refused}", err=True)
    _enter(directory)


def _ask(client: Client, uplink: str) -> ViaGroup:
    try:
        return client.ask(calls.EXEC_VIA, OfUplink(name=uplink))
    except ControlError as error:
        match error.status:
            case 403:
                raise NotPermitted(f"{error}; {NEEDS_ROOT}") from error
            case 501:
                raise MissingFeature(str(error)) from error
            case _:
                raise


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(error, f"cannot create the control group {directory}") from error


def _check(answer: ViaGroup, directory: Path) -> None:
    try:
        inode = directory.stat().st_ino
    except OSError as error:
        raise _refusal(error, f"cannot use the control group {directory}") from error
    if answer.group != inode:
        raise PolywanError(f"the daemon does not see the control group {directory}: does it run in another container?")
    if not answer.in_force:
        raise PolywanError(f"the rule for {directory} is not in force; the daemon's log says why")


def _enter(directory: Path) -> None:
    try:
        # 0 is the writing process itself (cgroups(7)).
        (directory / "cgroup.procs").write_text("0")
    except OSError as error:
        raise _refusal(error, f"cannot enter the control group {directory}") from error


def _refusal(error: OSError, what: str) -> PolywanError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(f"{what}: {error.strerror}; {NEEDS_ROOT}")
    hint = "; control groups are read-only here" if error.errno == errno.EROFS else ""
    return MissingFeature(f"{what}: {error.strerror}{hint}")


def replace_by(argv: Sequence[str]) -> NoReturn:
    """Replace this process by a program; exit as env(1) does when that fails: 127 not found, 126 anything else."""
    # Python ignores these two, and what is ignored stays so in the program (execve(2)).
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        if not argv[0]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvp(argv[0], list(argv))  # noqa: S606 - an argument list, and no shell is wanted
    except OSError as error:
        click.echo(f"polywan exec: {argv[0]}: {error.strerror}", err=True)
        absent = error.errno == errno.ENOENT or (error.errno == errno.ENOTDIR and "/" not in argv[0])
        raise SystemExit(127 if absent else 126) from error
