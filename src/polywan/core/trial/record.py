"""What is on disk about a trial: all that is needed to end it, whoever is left to do that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

RECORD_VERSION: Final = 1
"""Of what `stored` returns."""

RECORD_SUFFIX: Final = ".trial"
"""What the name of a configuration's record has behind that of its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process: its number alone may be another's by now, so that of its start belongs to it.

    Attributes:
        start: clock ticks since boot at which it started, as proc_pid_stat(5) has them.
    """

    pid: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The daemon under which a trial began, and how another one is started.

    Attributes:
        process: the daemon itself.
        argv: its words.
        cwd: its working directory.
        environment: what of it polywan looks at.
        unit: the systemd unit that runs it; empty for none.
    """

    process: Process
    argv: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A trial.

    Attributes:
        id: names it.
        user: who tries it; `uid` and `name` of it.
        since, until: by the clock on the wall, Unix seconds; for people alone.
        boot: the boot in which it began.
        began: when it was in force, seconds since that boot, time asleep included (clock_gettime(2) CLOCK_BOOTTIME);
            0 before that. `deadline`: when it ends.
        runtime_dir: where the daemon listens.
        name: of the one file that is tried, below the configuration's directory.
        text: what it says on trial.
        old: digest of what it says in force; empty when it is a new file.
        in_force: digest of all texts in force before it (`texts.digest_of_all`).
        edited: the text was in the file's place before the trial.
        armed: the file's place has been given back what is in force, or always had it.
        up: uplinks that were up or degraded before it.
        daemon: the daemon under which it began.
        supervisor: who watches it; None until it does.
    """

    id: str
    user: str
    since: float
    until: float
    boot: str
    began: float
    deadline: float
    runtime_dir: str
    name: str
    text: str
    old: str
    in_force: str
    edited: bool
    armed: bool
    up: tuple[str, ...]
    daemon: Daemon
    supervisor: Process | None = None


def stored(record: Record) -> dict[str, Any]:
    """Return a record as JSON has it."""
    plain = {name: getattr(record, name) for name in Record.__slots__}
    daemon = record.daemon
    return {
        "version": RECORD_VERSION,
        **plain,
        "up": list(record.up),
        "daemon": {
            "process": _stored(daemon.process),
            "argv": list(daemon.argv),
            "cwd": daemon.cwd,
            "environment": dict(daemon.environment),
            "unit": daemon.unit,
        },
        "supervisor": None if record.supervisor is None else _stored(record.supervisor),
    }


def restored(value: object) -> Record:
    """Return the record that `stored` has made, of this version.

    Raises:
        ValueError: it is none, or of another version.
    """
    if not isinstance(value, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - of a file
    if value.get("version") != RECORD_VERSION:
        raise ValueError(f"is of version {value.get('version')!r}, and this polywan knows {RECORD_VERSION}")
    try:
        plain = {name: _of_kind(value[name], kind) for name, kind in _KINDS.items()}
        daemon, watching = value["daemon"], value["supervisor"]
        return Record(
            **plain,
            up=_texts(value["up"]),
            daemon=Daemon(
                process=_process(daemon["process"]),
                argv=_texts(daemon["argv"]),
                cwd=_of_kind(daemon["cwd"], str),
                environment=_by_name(daemon["environment"]),
                unit=_of_kind(daemon["unit"], str),
            ),
            supervisor=None if watching is None else _process(watching),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{error} is missing or of the wrong kind") from error


_KINDS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("id", "user", "boot", "runtime_dir", "name", "text", "old", "in_force"), str),
    **dict.fromkeys(("since", "until", "began", "deadline"), float),
    **dict.fromkeys(("edited", "armed"), bool),
}


def _of_kind(value: Any, kind: type) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{value!r:.40}")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(_of_kind(one, str) for one in _of_kind(values, list))


def _by_name(values: Any) -> dict[str, str]:
    return dict(zip(values, _texts([*values.values()]), strict=True))


def _process(value: Any) -> Process:
    return Process(pid=_of_kind(value["pid"], int), start=_of_kind(value["start"], int))


def _stored(process: Process) -> dict[str, int]:
    return {"pid": process.pid, "start": process.start}
