"""Parts that the machine knows: versions, the kernel's state, and the log."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from polywan import __version__
from polywan.bundle.part import Part
from polywan.core.errors import PolywanError
from polywan.doctor.reading import machine, network
from polywan.doctor.reading.texts import text
from polywan.kernel.programs import output

LOG_LINES: Final = 1000
MOST_ELEMENTS: Final = 600
"""Elements of one set or map that are shown: slot maps have 256, and the list of a country has thousands."""

_ELEMENTS: Final = re.compile(r"elements = \{([^{}]*)\}")
_PACKAGE: Final = re.compile(r"[\w.-]+")
_FAMILY_PARTS: Final = (("rules", ("rule", "show")), ("routes", ("route", "show", "table", "all")))


def parts(root: Path = Path("/")) -> tuple[Part, ...]:
    """Return the parts, in the order in which people read them."""
    by_family = (_ip(f"{name}{family}", f"-{family}", *words) for name, words in _FAMILY_PARTS for family in (4, 6))
    return (
        Part("versions.txt", "of polywan, its libraries, the kernel and the distribution", lambda: versions(root)),
        Part("log.txt", f"the last {LOG_LINES} lines of the log", lambda: _log(root)),
        _ip("addresses", "address", "show"),
        *by_family,
        _ip("nexthops", "nexthop", "show"),
        _ip("neighbours", "neighbour", "show"),
        Part("kernel/ruleset.nft", f"nft list ruleset, with {MOST_ELEMENTS} elements of a set at most", _ruleset),
        Part(
            "kernel/queues.json",
            "tc -json qdisc show",
            lambda: output(["tc", "-json", "-pretty", "-details", "qdisc", "show"], "iproute2"),
        ),
        Part("kernel/settings.txt", "settings below /proc/sys/net", _settings),
        Part("kernel/tracking.txt", "counters of connection tracking", _tracking),
    )


def _ip(name: str, *words: str) -> Part:
    command = ["ip", "-json", "-pretty", "-details", *words]
    return Part(f"kernel/{name}.json", " ".join(command), lambda: output(command, "iproute2"))


def versions(root: Path = Path("/")) -> str:
    """Return what runs here; what is not installed is said."""
    system = re.search(r"^PRETTY_NAME=\"?([^\"\n]*)", text(root / "etc/os-release"), re.MULTILINE)
    kernel = os.uname()
    lines = [
        f"polywan {__version__}",
        f"Python {platform.python_version()}",
        *(f"{name} {metadata.version(name)}" for name in _libraries()),
        f"{kernel.sysname} {kernel.release} {kernel.version} {kernel.machine}",
        system[1] if system else "a system without /etc/os-release",
        *(_said(command) for command in (["nft", "--version"], ["ip", "-Version"], ["systemctl", "--version"])),
    ]
    return "".join(f"{line}\n" for line in lines)


def _libraries() -> Sequence[str]:
    try:
        wanted = metadata.requires("polywan") or ()
    except metadata.PackageNotFoundError:
        # The tree of a distribution's package, which describes all that is in it but polywan.
        return sorted({each.name for each in metadata.distributions()})
    return [name[0] for text in wanted if "extra ==" not in text and (name := _PACKAGE.match(text))]


def _said(command: Sequence[str]) -> str:
    try:
        return output(command, command[0]).strip().partition("\n")[0]
    except PolywanError as error:
        return str(error)


def _log(root: Path) -> str:
    if not (root / "run/systemd/system").is_dir():
        raise PolywanError("systemd does not run here: the log is where `polywan run` writes its standard error")
    words = ["--unit", "polywan", "--lines", str(LOG_LINES), "--no-hostname", "--no-pager", "--output", "short-iso"]
    return output(["journalctl", *words], "systemd")


def _ruleset() -> str:
    try:
        return shortened(output(["nft", "list", "ruleset"], "nftables"))
    except PolywanError as error:
        if "prints more than" not in str(error):
            raise
        return output(["nft", "--terse", "list", "ruleset"], "nftables")


def shortened(ruleset: str, most: int = MOST_ELEMENTS) -> str:
    """Return a rule set without what is beyond the first elements of large sets and maps."""

    def cut(match: re.Match[str]) -> str:
        elements = match[1].split(",")
        if len(elements) <= most:
            return match[0]
        return f"elements = {{{','.join(elements[:most])} }} # and {len(elements) - most} more"

    return _ELEMENTS.sub(cut, ruleset)


def _settings() -> str:
    found = network.settings(network.observed())
    return "".join(f"{path.replace('/', '.')} = {value}\n" for path, value in found.items())


def _tracking() -> str:
    found = machine.tracking(text(Path("/proc/net/stat/nf_conntrack")))
    return "".join(f"{name} {count}\n" for name, count in found.items())
