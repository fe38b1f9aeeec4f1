"""scripts/vm: in a checkout of its own for tests that must not meet this machine's kernels, and as it is for others."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

HIDEABLE = shutil.which("sh", path="/usr/sbin") is None
"""Whether a test can hide a program by PATH: scripts/vm looks into /usr/sbin, too, which some systems make /usr/bin."""

RunGuest = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs a command in a guest: words of scripts/vm, the directory to run in, and more variables."""


@dataclass(frozen=True)
class Checkout:
    """A copy of scripts/vm below a directory of the test."""

    place: Path

    @classmethod
    def at(cls, place: Path) -> Checkout:
        scripts = place / "checkout" / "scripts"
        scripts.mkdir(parents=True)
        shutil.copy(SCRIPTS / "vm", scripts)
        shutil.copytree(SCRIPTS / "guest", scripts / "guest", ignore=shutil.ignore_patterns("__pycache__"))
        (place / "tools").mkdir()
        return cls(place)

    @property
    def cache(self) -> Path:
        return self.place / "cache" / "polywan"

    @property
    def config(self) -> Path:
        return self.place / "checkout" / "scripts" / "guest" / "kernel.config"

    def tool(self, name: str, text: str = "exit 0") -> None:
        """Put a shell script before the programs of this machine."""
        path = self.place / "tools" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-I", str(self.place / "checkout" / "scripts" / "vm"), *words]

    def variables(self, **more: str) -> dict[str, str]:
        path = f"{self.place / 'tools'}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "XDG_CACHE_HOME": str(self.place / "cache"), **more}

    def run(self, *words: str, directory: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        variables = self.variables(**more)
        return subprocess.run(
            self.argv(*words), cwd=directory, env=variables, capture_output=True, text=True, check=False
        )

    def find(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.run("--find", *words, directory=None, **more)

    def pack(self, contents: bytes, version: str = "7") -> Path:
        """Put a packed kernel beside the checkout."""
        packed = self.place / "shared" / "vm" / f"linux-{version}.uml.xz"
        packed.parent.mkdir(parents=True, exist_ok=True)
        with lzma.open(packed, "wb") as file:
            file.write(contents)
        return packed

    def unpack_debian(self, version: str = "6.1.0-1-amd64") -> Path:
        """Put what stands for Debian's kernel into the cache, and for QEMU before this machine's programs."""
        image = self.cache / "debian" / "boot" / f"vmlinuz-{version}"
        image.parent.mkdir(parents=True)
        image.touch()
        for name in ("qemu-system-x86_64", "depmod"):
            self.tool(name)
        return image
