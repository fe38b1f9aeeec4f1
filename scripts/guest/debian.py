"""Packages from the Debian mirror that apt uses here, with lists of our own: the system's apt stays as it is."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from guest.errors import GuestError
from guest.processes import require, run

TOOLS: Final = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg"}
KEYRINGS: Final = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")


def mirrors(addresses: Iterable[str], release: str) -> list[str]:
    """Return the addresses of what may be a mirror of Debian, in apt's order.

    Args:
        addresses: lines of `apt-get update --print-uris`.
        release: the code name of this system's release. Others have a suite of that name, too: signatures tell.
    """
    found = (re.match(rf"'(\S+?)/?/dists/{re.escape(release)}/(?:In)?Release", line) for line in addresses)
    return list(dict.fromkeys(match[1] for match in found if match))


def sources(address: str, suite: str, keyring: Path | None) -> str:
    """Return the text of a file of apt's sources."""
    signed = f"Signed-By: {keyring}\n" if keyring else ""
    return f"Types: deb\nURIs: {address}\nSuites: {suite}\nComponents: main\n{signed}"


def own_settings(dumped: Iterable[str], directory: Path) -> str:
    """Return the text of an apt.conf that works below a directory only.

    Args:
        dumped: lines of `apt-config dump`: a proxy and the like stay in force.
        directory: where lists and packages go.
    """
    # Programs that the system runs after an update are for its own lists.
    kept = [line for line in dumped if not line.startswith("APT::Update::") and line.endswith(";")]
    own = {
        "Dir::Etc::sourcelist": directory / "polywan.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": directory / "lists",
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "",
    }
    return "\n".join([*kept, *(f'{name} "{value}";' for name, value in own.items()), ""])


class Archive:
    """One suite of Debian."""

    def __init__(self, directory: Path, suite: str = "") -> None:
        """Fetch the lists of a suite.

        Args:
            directory: to work in; it is made.
            suite: its name; empty: this system's own release.

        Raises:
            GuestError: apt is not there, or has no mirror with that suite, signed by Debian.
        """
        require(TOOLS, "fetching a Debian package")
        self.directory = directory
        for part in ("lists/partial", "cache/archives/partial"):
            (directory / part).mkdir(parents=True)
        (directory / "status").touch()
        (directory / "apt.conf").write_text(own_settings(run(["apt-config", "dump"]), directory))
        release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
        keyring = next((path for name in KEYRINGS if (path := Path("/usr/share/keyrings", name)).exists()), None)
        why = "apt has no Debian mirror among its sources"
        for address in mirrors(run(["apt-get", "update", "--print-uris"]), release):
            (directory / "polywan.sources").write_text(sources(address, suite or release, keyring))
            try:
                self._run("apt-get", "update", "--error-on=any")
            except GuestError as error:
                why = str(error)
            else:
                return
        raise GuestError(why)

    def _run(self, *words: str | Path, cwd: Path | None = None) -> list[str]:
        return run(words, cwd=cwd, variables={"APT_CONFIG": str(self.directory / "apt.conf")})

    def has(self, package: str) -> bool:
        """Tell whether the suite has a package of that name."""
        return bool(self._run("apt-cache", "search", "--names-only", f"^{re.escape(package)}$"))

    def needed(self, package: str) -> list[str]:
        """Return the packages that a package depends on."""
        found = (
            re.fullmatch(r"\s+Depends: ([a-z0-9.+-]+)", line) for line in self._run("apt-cache", "depends", package)
        )
        return [match[1] for match in found if match]

    def unpack(self, package: str, target: Path) -> str:
        """Fetch a package and unpack its files below a directory; return its version."""
        self._run("apt-get", "download", "--quiet", package, cwd=self.directory)
        deb = next(self.directory.glob("*.deb"))
        run(["dpkg-deb", "--extract", deb, target])
        (version,) = run(["dpkg-deb", "--field", deb, "Version"])
        deb.unlink()
        return version
