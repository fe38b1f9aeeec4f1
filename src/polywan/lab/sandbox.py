"""Private namespaces for the whole process: nothing made inside is seen outside or left behind.

The process replaces itself by ``unshare(1)`` and itself again, so it keeps its pid: whoever kills that pid
ends the lab, and the kernel removes every namespace with its last process (namespaces(7)).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from polywan.core.errors import MissingFeature, PolywanError

INSIDE: Final = "POLYWAN_NETNS"
"""Environment variable which says "1" to a process that was started in private namespaces."""

OUTSIDE: Final = "POLYWAN_OUTSIDE"
"""Names of the namespaces that `enter` left, so that what follows can tell it is elsewhere now."""

_KINDS: Final = ("mnt", "net")
"""Kinds of namespaces that have to be private."""

_TOOLS: Final = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux", "setpriv": "util-linux"}
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_SWITCHES: Final = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
_MARKER: Final = Path("/run/polywan-lab")
_CAP_SYS_ADMIN: Final = 21
_MS_NOSUID, _MS_NODEV = 2, 4

_libc: Final = ctypes.CDLL(None, use_errno=True)


class LabError(PolywanError):
    """The lab cannot be built or a step of it failed; the text says what to do."""


def missing_tools() -> list[str]:
    """Name each program the lab needs and does not find, with the package that brings it."""
    path = _path_with_sbin()
    return [f"{tool} (package {package})" for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None]


def not_private() -> str:
    """Say why this process is not in namespaces of its own; empty when it is.

    A namespace that neither pid 1 shares nor whoever called `enter` is private. When the kernel hides those of
    pid 1 and nobody called, mapped ids prove it: capabilities count only in what our own user namespace owns.
    """
    if os.environ.get(INSIDE) != "1":
        return f"{INSIDE} is not set"
    outer = dict(entry.partition("=")[::2] for entry in os.environ.get(OUTSIDE, "").split())
    for kind in _KINDS:
        own = os.readlink(f"/proc/self/ns/{kind}")
        try:
            shared = own in (os.readlink(f"/proc/1/ns/{kind}"), outer.get(kind))
        except OSError:
            # Without a word from `enter` about where it came from, a hidden pid 1 proves nothing to a real root.
            shared = own == outer.get(kind) if outer else not _in_user_namespace()
        if shared:
            return f"{INSIDE} is set, but this is the system's own {kind} namespace"
    if not _has_sys_admin():
        return "CAP_SYS_ADMIN is absent"
    return ""


def _in_user_namespace() -> bool:
    """True when ids are mapped: the system's own user namespace maps all of them to themselves (user_namespaces(7))."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def enter(argv: Sequence[str]) -> NoReturn:
    """Replace this process by `argv` in new mount and network namespaces (and a user namespace unless root).

    Raises:
        MissingFeature: a tool is absent.
        LabError: the system does not allow namespaces; the text says what would.
    """
    if missing := missing_tools():
        raise MissingFeature("the lab needs " + ", ".join(missing))
    is_root = os.geteuid() == 0
    os.environ["PATH"] = _path_with_sbin()
    modes = ("-mn", "-Urmn") if is_root else ("-Urmn",)
    mode = next((w for w in modes if _allowed(w)), None)
    if mode is None:
        raise LabError(refusal(_switches(), is_root=is_root))
    os.environ[INSIDE] = "1"
    os.environ[OUTSIDE] = " ".join(f"{kind}={os.readlink(f'/proc/self/ns/{kind}')}" for kind in _KINDS)
    os.execvp("unshare", ["unshare", mode, "--", *argv])  # noqa: S606 - an argument list, and no shell is wanted


def prepare() -> None:
    """Give these namespaces a /run of their own, where ``ip netns add`` keeps names; safe to call again.

    Raises:
        LabError: these namespaces are not private, or the mount was refused.
    """
    if reason := not_private():
        raise LabError(reason)
    # A sandbox within a sandbox sees the outer one's /run: the marker names the namespace it was made for.
    own = Path("/proc/self/ns/mnt").readlink()
    if _MARKER.is_symlink() and _MARKER.readlink() == own:
        return
    run = Path("/run")
    # Some distributions keep the way to every program there (/run/current-system).
    links = {entry.name: entry.readlink() for entry in run.iterdir() if entry.is_symlink() and entry != _MARKER}
    if _libc.mount(b"tmpfs", b"/run", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=755") != 0:
        error = ctypes.get_errno()
        raise LabError(f"cannot mount a private /run: {os.strerror(error)}")
    for name, target in links.items():
        (run / name).symlink_to(target)
    (run / "netns").mkdir()
    _MARKER.symlink_to(own)


def refusal(switches: Mapping[str, str], *, is_root: bool) -> str:
    """Return the one line that says how to allow namespaces; `switches` are settings by sysctl(8) name."""
    if is_root:
        return "namespaces are refused to root here: give the container CAP_SYS_ADMIN (docker run --privileged)"
    for name, (off, on) in _SWITCHES.items():
        if switches.get(name) == off:
            return f"this user may not create namespaces: run as root, or allow it: sudo sysctl -w {name}={on}"
    return "this user may not create namespaces: run as root"


def _switches() -> dict[str, str]:
    found = {}
    for name in _SWITCHES:
        path = Path("/proc/sys", *name.split("."))
        if path.exists():
            found[name] = path.read_text(encoding="ascii").strip()
    return found


def _allowed(mode: str) -> bool:
    """Try it with a command that needs the new capabilities: a map alone may be allowed and give none."""
    trial = subprocess.run(["unshare", mode, "--", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return trial.returncode == 0


def _has_sys_admin() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _path_with_sbin() -> str:
    known = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*known, *(place for place in _SBIN if place not in known)])
