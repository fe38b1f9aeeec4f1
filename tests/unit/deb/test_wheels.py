"""What may get from a wheel into the private tree of the Debian package."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from deb.errors import BuildError
from deb.wheels import require_compiled, unpack


def wheel(place: Path, name: str, files: Mapping[str, bytes]) -> Path:
    path = place / f"{name}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def modules(*pythons: str, machine: str = "x86_64") -> dict[str, bytes]:
    return {f"pydantic_core/_pydantic_core.cpython-{p}-{machine}-linux-gnu.so": b"\x7fELF" for p in pythons}


def test_wheels_are_unpacked_side_by_side(tmp_path: Path) -> None:
    first = wheel(tmp_path, "a", {"pydantic_core/__init__.py": b"x", "a.dist-info/WHEEL": b"1", **modules("311")})
    second = wheel(tmp_path, "b", {"pydantic_core/__init__.py": b"x", "a.dist-info/WHEEL": b"2", **modules("312")})
    unpack([first, second], tmp_path / "tree")
    require_compiled(tmp_path / "tree", "amd64", ["3.11", "3.12"])


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"click/speedups.so": b"\x7fELF..."}, "click/speedups.so is machine code"),
        ({"click/innocent.txt": b"\x7fELF..."}, "click/innocent.txt is machine code"),
        ({"click-1.data/scripts/click": b""}, "belongs outside of the tree"),
        ({"../../etc/passwd": b""}, "outside of the wheel"),
        ({"/etc/passwd": b""}, "outside of the wheel"),
    ],
)
def test_a_wheel_that_wants_more_is_refused(tmp_path: Path, files: Mapping[str, bytes], problem: str) -> None:
    with pytest.raises(BuildError, match=problem):
        unpack([wheel(tmp_path, "odd", files)], tmp_path / "tree")


def test_two_wheels_with_different_files_of_one_name_are_refused(tmp_path: Path) -> None:
    wheels = [wheel(tmp_path, name, {"shared.py": name.encode()}) for name in ("a", "b")]
    with pytest.raises(BuildError, match=r"b.whl: shared.py is not the same"):
        unpack(wheels, tmp_path / "tree")


@pytest.mark.parametrize(
    "found", [modules("311"), modules("311", "312", "313"), modules("311", "312", machine="aarch64")]
)
def test_a_compiled_module_too_few_or_too_many_is_refused(tmp_path: Path, found: Mapping[str, bytes]) -> None:
    unpack([wheel(tmp_path, "core", found)], tmp_path / "tree")
    with pytest.raises(BuildError, match="compiled modules are missing, or nobody expected them"):
        require_compiled(tmp_path / "tree", "amd64", ["3.11", "3.12"])
