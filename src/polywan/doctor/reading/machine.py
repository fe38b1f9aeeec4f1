"""Read files, units, tools and the clock."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from polywan import presence
from polywan.child import CLEAN
from polywan.doctor.facts.boot_settings import SettingsFile
from polywan.doctor.facts.machine import Clock, MachineFacts, Process, Unit, config_of
from polywan.doctor.reading.texts import LONGEST, text
from polywan.files import content
from polywan.kernel import clock
from polywan.kernel.sysctl import SYSCTL_ROOT

if TYPE_CHECKING:
    from polywan.doctor.reading.collect import Places

TOOLS: Final = ("ip", "nft", "conntrack", "pppd")

_SETTINGS: Final = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
_UNITS: Final = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
_UNIT: Final = "polywan.service"
_TRACKING: Final = Path("/proc/net/stat/nf_conntrack")


def read(places: Places) -> MachineFacts:
    """Return what the box says; what cannot be read is as if it were not there."""
    root = places.root
    release = os.uname().release
    systemd = (root / "run/systemd/system").is_dir()
    return MachineFacts(
        tracking=tracking(text(_TRACKING)),
        tracking_fixed=_fixed(),
        boot=tuple(boot_settings(root, systemd=systemd)),
        clock=_clock(root),
        release=release,
        modules=_has_modules(root, release),
        absent=frozenset(tool for tool in TOOLS if shutil.which(tool, path=CLEAN["PATH"]) is None),
        systemd=systemd,
        unit=unit(root) if systemd else None,
        daemon=_daemon(),
        elsewhere=tuple(_elsewhere()),
        config=os.path.realpath(places.config),
        unread_files=_unread_files(places.config.parent / "conf.d"),
    )


def tracking(listing: str) -> Mapping[str, int]:
    """Return the sums of all lines, one for each CPU, whose numbers are hexadecimal; `entries` is no sum."""
    heading, *lines = listing.splitlines() or [""]
    found: Counter[str] = Counter()
    for line in lines:
        for name, number in zip(heading.split(), line.split(), strict=False):
            found[name] += int(number, 16)
    found.pop("entries", None)
    return found


def boot_settings(root: Path, *, systemd: bool) -> Iterator[SettingsFile]:
    """Yield the files of sysctl.d(5) in order; without systemd, sysctl(8) reads /etc/sysctl.conf last.

    After all of them ufw(8), if it is on, applies a file of its own, which in Ubuntu asks for strict filtering.
    """
    files: dict[str, Path] = {}
    for folder in _SETTINGS:
        for file in _entries(root / folder):
            if file.name.endswith(".conf"):
                files.setdefault(file.name, file)
    ordered = [file for _, file in sorted(files.items())]
    last = [] if systemd else [root / "etc/sysctl.conf"]
    if re.search(r"^ENABLED=[\"']?yes", text(root / "etc/ufw/ufw.conf"), re.MULTILINE):
        last.append(root / "etc/ufw/sysctl.conf")
    for file in [*ordered, *last]:
        yield SettingsFile(f"/{file.relative_to(root)}", text(file))


def unit(root: Path) -> Unit | None:
    """Return the unit file, from the folder that counts."""
    for folder in _UNITS:
        path = root / folder / _UNIT
        if path.is_symlink() or path.exists():
            masked = path.is_symlink() and str(path.readlink()) == os.devnull
            return Unit(f"/{folder}/{_UNIT}", enabled=not masked and _wanted(root), masked=masked)
    return None


def _wanted(root: Path) -> bool:
    folders = (entry for folder in _UNITS for entry in _entries(root / folder))
    return any(folder.name.endswith((".wants", ".requires")) and (folder / _UNIT).is_symlink() for folder in folders)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _fixed() -> bool:
    """Tell whether the kernel shows the size without letting anybody set it, as in a network namespace of its own."""
    try:
        return not (SYSCTL_ROOT / "net/netfilter/nf_conntrack_max").stat().st_mode & stat.S_IWUSR
    except OSError:
        return False


def _clock(root: Path) -> Clock:
    local = root / "etc/localtime"
    try:
        zone = str(local.readlink()).partition("zoneinfo/")[2]
    except OSError:
        zone = ""
    try:
        confirmed = (root / "var/lib/systemd/timesync/clock").stat().st_mtime
    except OSError:
        confirmed = 0.0
    return Clock(clock.synchronised(), confirmed, zone, text(root / "etc/timezone").strip())


def _has_modules(root: Path, release: str) -> bool:
    """Tell whether the running kernel finds modules; one without any others beside it may have none at all."""
    folder = root / "lib/modules"
    return (folder / release).is_dir() or not any(entry.is_dir() for entry in _entries(folder))


def _daemon() -> Process | None:
    found = presence.found()
    if found is None:
        return None
    folder = Path(f"/proc/{found.pid}")
    environment = _zero_ended(folder / "environ")
    arguments, directory = _zero_ended(folder / "cmdline"), _link(folder / "cwd")
    named = config_of(arguments)
    # A relative name means nothing without the folder.
    known = named is not None and (directory or named.startswith("/"))
    return Process(
        pid=found.pid,
        arguments=arguments,
        group=text(folder / "cgroup").strip().rpartition(":")[2],
        zone=next((word[3:] for word in environment if word.startswith("TZ=")), None),
        config=os.path.realpath(os.path.join(directory, named or "")) if known else None,
    )


def _elsewhere() -> Iterator[int]:
    """Yield the daemons of other network namespaces, as far as /proc shows them."""
    here = _link(Path("/proc/self/ns/net"))
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            words = _zero_ended(Path(f"/proc/{entry}/cmdline"))
            name = [word.rpartition("/")[2] for word in words]
            if "run" in name[1:4] and "polywan" in name[:3]:
                there = _link(Path(f"/proc/{entry}/ns/net"))
                if there and there != here:
                    yield int(entry)


def _zero_ended(file: Path) -> tuple[str, ...]:
    try:
        words = content(file, LONGEST)
    except OSError:
        return ("",)
    return tuple(words.decode("utf-8", "replace").rstrip("\0").split("\0"))


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _unread_files(folder: Path) -> Mapping[str, str]:
    hidden = (".",)
    return {
        str(file): text(file)
        for file in _entries(folder)
        if not file.name.endswith(".toml") and not file.name.startswith(hidden)
    }
