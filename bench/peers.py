"""What polywan is compared with: Shorewall in the same run where it is installed, and figures of an earlier study."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from world import World

from polywan.lab.sandbox import LabError

STUDY: Final[dict[str, dict[str, dict[int, str]]]] = {
    "full start": {
        "mwan3 2.12.2": {2: "177", 8: "396", 53: "6 561", 200: "185 600"},
        "Shorewall 5.2.8": {2: "729", 8: "1 155", 53: "2 924", 200: "11 656"},
        "link-balancer": {2: "422", 8: "1 595", 53: "24 474", 200: "> 200 000"},
        "Net-ISP-Balance": {2: "338", 8: "616", 53: "8 299", 200: "85 034"},
    },
    "one uplink down": {
        "mwan3 2.12.2": {2: "35", 8: "57", 53: "512", 200: "7 237"},
        "Shorewall 5.2.8": {2: "79", 8: "149", 53: "405", 200: "1 347"},
        "link-balancer": {2: "288", 8: "672", 53: "1 824"},
        "Net-ISP-Balance": {2: "445", 8: "649", 53: "9 259"},
    },
    "one weight changed": {
        "mwan3 2.12.2": {2: "37", 8: "64", 53: "534", 200: "5 290"},
        "Shorewall 5.2.8": {2: "797", 8: "1 332", 53: "3 303", 200: "9 390"},
        "link-balancer": {2: "353", 8: "801", 53: "2 424"},
        "Net-ISP-Balance": {2: "443", 8: "636", 53: "8 674", 200: "101 162"},
    },
}
"""Milliseconds, medians of 1 to 3 other runs of the tools' own programs in a lab of this kind."""

STUDY_FAILOVER: Final = (
    ("mwan3, defaults (a ping every 10 s, down after 5)", "silence", "66 s"),
    ("Net-ISP-Balance with lsm, defaults (every 1 s, 7 lost)", "silence", "9 s"),
    ("Net-ISP-Balance with lsm, defaults", "carrier", "9 s (the carrier is not watched)"),
    ("Shorewall with lsm, defaults", "silence", "8 s"),
    ("ECMP, kernel alone", "carrier", "never: 29 % failed as long as it was watched"),
    ("ECMP, ignore_routes_with_linkdown=1", "carrier", "at once: 0 of 383 failed"),
)
"""Time until new connections stopped failing, four uplinks, one new connection every 20 ms."""

STUDY_FOOTPRINT: Final = (
    ("mwan3track, a ping every 10 s (default)", "106", "2.2 %", "170 MiB"),
    ("mwan3track, a ping every second", "106", "27.8 %", "170 MiB"),
    ("lsm 1.0.4, a ping every second", "1", "2.3 %", "2.4 MiB"),
    ("keepalived 2.2.7, a ping script every second", "2 and the pings", "12.6 %", "13 MiB"),
)
"""Monitors of 53 uplinks: processes, share of one processor, sum of resident memory."""

_SETTINGS: Final = {
    "KEEP_RT_TABLES": "Yes",
    "IP_FORWARDING": "On",
    "PROVIDER_BITS": "8",
    "PROVIDER_OFFSET": "8",
    "ROUTE_FILTER": "No",
    "TC_ENABLED": "No",
    "CLEAR_TC": "No",
}
_FOLDERS: Final = {"etc": Path("/etc/shorewall"), "var": Path("/var/lib/shorewall")}
_PATIENCE: Final = 120.0


def why_no_shorewall() -> str:
    """Say why Shorewall cannot be run here; empty when it can."""
    if shutil.which("shorewall") is None:
        return "shorewall is absent (package shorewall)"
    absent = [str(folder) for folder in _FOLDERS.values() if not folder.is_dir()]
    return f"shorewall lacks {', '.join(absent)}" if absent else ""


@dataclass(frozen=True, slots=True)
class Shorewall:
    """Shorewall in a world's router, with folders of its own; `shorewall` makes one."""

    world: World
    home: Path

    def write(self, weights: dict[int, int]) -> None:
        """Write the providers, each with weight 1 but for `weights`."""
        lines = [
            f"isp{n} {n} - - wan{n} 100.64.{n}.1 track,balance={weights.get(n, 1)} -"
            for n in range(1, self.world.uplinks + 1)
        ]
        self._file("providers", lines)

    def run(self, *words: str) -> float:
        """Run one command of shorewall(8) and return its milliseconds.

        Raises:
            LabError: it failed or hung; the text is the end of what it said.
        """
        with self.world.router.entered():
            began = time.perf_counter()
            try:
                done = subprocess.run(
                    ["shorewall", *words],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=_PATIENCE,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired as error:
                raise LabError(f"shorewall {words[0]} took more than {_PATIENCE:.0f} s") from error
            taken = 1000 * (time.perf_counter() - began)
        if done.returncode != 0:
            raise LabError(f"shorewall {words[0]}: {(done.stderr or done.stdout).strip()[-300:]}")
        return taken

    def one_round(self, number: int) -> dict[str, float]:
        """Measure each step once, from nothing back to nothing; `number` is the uplink that goes down."""
        self.write({})
        try:
            full = self.run("start")
            down = self.run("disable", f"isp{number}")
            self.run("enable", f"isp{number}")
            reload = self.run("reload")
            self.write({number: 2})
            weight = self.run("reload")
        finally:
            self.run("clear")
            for made in (self.home / "var").iterdir():
                if made.is_file():
                    made.unlink()
        return {"full_ms": full, "down_ms": down, "weight_ms": weight, "reload_ms": reload}

    def furnish(self) -> None:
        """Write everything but the providers: a router that forwards and masquerades, and lets nothing in."""
        numbers = range(1, self.world.uplinks + 1)
        self._file("shorewall.conf", [self._settings()])
        self._file("params", [])
        self._file("zones", ["fw firewall", "loc ipv4", "net ipv4"])
        self._file("interfaces", ["?FORMAT 2", "loc lan0", *(f"net wan{n} optional" for n in numbers)])
        self._file("policy", ["$FW all ACCEPT", "loc all ACCEPT", "net all DROP"])
        self._file("snat", [f"MASQUERADE 192.168.15.0/24 wan{n}" for n in numbers])

    def _settings(self) -> str:
        text = (_FOLDERS["etc"] / "shorewall.conf").read_text(encoding="utf-8")
        logs = {"STARTUP_LOG": str(self.home / "startup.log"), "LOGFILE": str(self.home / "messages")}
        for key, value in {**_SETTINGS, **logs}.items():
            text = re.sub(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        return text

    def _file(self, name: str, lines: list[str]) -> None:
        (self.home / "etc" / name).write_text("\n".join([*lines, ""]), encoding="utf-8")


@contextmanager
def shorewall(world: World, home: Path) -> Iterator[Shorewall]:
    """Lay folders below `home` over Shorewall's own, in this process's private mount namespace only.

    Raises:
        LabError: the mounts were refused.
    """
    for name in _FOLDERS:
        (home / name).mkdir(parents=True)
    made = Shorewall(world, home)
    made.furnish()
    mounted: list[Path] = []
    try:
        for name, place in _FOLDERS.items():
            _tool("mount", "--bind", str(home / name), str(place))
            mounted.append(place)
        yield made
    finally:
        for place in mounted:
            _tool("umount", str(place))


def _tool(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}")
