"""Fetch locked wheels, and unpack them side by side: pure Python once, compiled modules once for each Python."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from deb.errors import BuildError

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Debian 12, Ubuntu 24.04, Debian 13, and the next one; debian/control limits python3 to these."""

MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Architectures of Debian, and what wheels call them."""

_PLATFORMS: Final = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
"""C libraries that a compiled wheel may want; Debian 12 has 2.36."""

COMPILED: Final = "pydantic_core"
"""The only distribution that may hold machine code."""

_FORMATS: Final = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""How machine code of Linux, Windows and macOS begins."""


def fetch(lock: Path, architecture: str, pythons: Sequence[str], into: Path) -> list[Path]:
    """Download the wheels that a lock file names, for an architecture and some Pythons.

    Returns:
        The wheels, in the order of their names.

    Raises:
        BuildError: pip fails, such as for a file that has another hash; the text begins with its words.
    """
    for python in pythons:
        command = [
            *(sys.executable, "-I", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", str(lock)),
            *("--implementation", "cp", "--python-version", python, "--abi", f"cp{python.replace('.', '')}"),
            *("--abi", "abi3", "--abi", "none"),
            *(word for name in _PLATFORMS for word in ("--platform", f"{name}_{MACHINES[architecture]}")),
            *("--dest", str(into)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"{done.stderr}pip could not fetch the wheels for Python {python}; nothing was built")
    return sorted(into.glob("*.whl"))


def unpack(wheels: Sequence[Path], tree: Path) -> None:
    """Unpack wheels into one tree.

    Raises:
        BuildError: a wheel wants more than to be unpacked, holds machine code where none is expected, or has another
            file than one before it.
    """
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name, content in _contents(archive, wheel.name):
                _place(tree / name, content, wheel.name)


def _contents(archive: zipfile.ZipFile, wheel: str) -> Iterator[tuple[str, bytes]]:
    for info in archive.infolist():
        parts = PurePosixPath(info.filename).parts
        if info.is_dir():
            continue
        if not parts or parts[0] == "/" or ".." in parts:
            raise BuildError(f"{wheel}: {info.filename} is outside of the wheel")
        if parts[0].endswith(".data"):
            raise BuildError(f"{wheel}: {info.filename} belongs outside of the tree; nobody has looked at that yet")
        content = archive.read(info)
        if content.startswith(_FORMATS) and parts[0] != COMPILED:
            raise BuildError(f"{wheel}: {info.filename} is machine code; only {COMPILED} may have some")
        yield info.filename, content


def _place(path: Path, content: bytes, wheel: str) -> None:
    # What describes a distribution differs between its wheels, each of which is for one Python.
    if any(part.endswith(".dist-info") for part in path.parts):
        if path.exists():
            return
    elif path.exists() and path.read_bytes() != content:
        raise BuildError(f"{wheel}: {path.name} is not the same as in another wheel")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def require_compiled(tree: Path, architecture: str, pythons: Sequence[str]) -> None:
    """See to it that each Python finds its compiled module, and that there is nothing else compiled.

    Raises:
        BuildError: one is missing, or one too many.
    """
    wanted = {
        f"_{COMPILED}.cpython-{python.replace('.', '')}-{MACHINES[architecture]}-linux-gnu.so" for python in pythons
    }
    found = {path.name for path in tree.rglob("*") if re.search(r"\.(so|pyd|dylib|dll)(\.|$)", path.name)}
    if found != wanted:
        odd = ", ".join(sorted(found ^ wanted))
        raise BuildError(f"compiled modules are missing, or nobody expected them: {odd}")
