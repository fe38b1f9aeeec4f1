"""The lock files: what CI and users install is what they name, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "packaging"
LOCKS = sorted(path.name for path in PACKAGING.glob("requirements*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUN = PROJECT["project"]["dependencies"]
BUILD = PROJECT["build-system"]["requires"]
DEV = PROJECT["project"]["optional-dependencies"]["dev"]
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


def entries(lock: str) -> list[str]:
    """Each requirement of a lock file with its hashes, as one line."""
    text = (PACKAGING / lock).read_text("utf-8")
    lines = (line for line in text.splitlines() if line and not line.lstrip().startswith("#"))
    return "\n".join(lines).replace("\\\n", "").splitlines()


def pins(lock: str) -> dict[str, Requirement]:
    requirements = [Requirement(entry.partition("--hash")[0].strip()) for entry in entries(lock)]
    found: dict[str, Requirement] = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(found) == len(requirements), "a package is in it twice"
    return found


def version(pin: Requirement) -> str:
    """The one version of a pin."""
    (only,) = pin.specifier
    assert only.operator == "=="
    return only.version


def test_there_is_a_lock_for_each_set_that_is_installed_somewhere() -> None:
    assert LOCKS == ["requirements-audit.txt", "requirements-build.txt", "requirements-dev.txt", "requirements.txt"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_one_version_with_hashes_and_from_nowhere_else(lock: str) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert HASH.search(entry), entry
        assert re.fullmatch(r"--hash=sha256:\S+", " ".join(HASH.sub("", entry).split()[1:])) is None
    for pin in pins(lock).values():
        assert pin.url is None
        assert version(pin)
        assert "*" not in version(pin)


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [("requirements.txt", RUN), ("requirements-dev.txt", [*RUN, *DEV]), ("requirements-build.txt", BUILD)],
)
def test_a_lock_has_what_the_project_wants_within_its_bounds(lock: str, wanted: list[str]) -> None:
    found = pins(lock)
    for requirement in map(Requirement, wanted):
        pin = found[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version(pin)), f"{requirement}, but {pin}"
        assert requirement.extras == set()


def test_the_files_that_locks_are_made_from_say_what_the_project_says() -> None:
    lines = (PACKAGING / "requirements-build.in").read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == BUILD


def test_packages_that_several_locks_name_have_one_version_in_them() -> None:
    dev = {name: version(pin) for name, pin in pins("requirements-dev.txt").items()}
    for lock in ("requirements.txt", "requirements-build.txt"):
        for name, pin in pins(lock).items():
            assert dev[name] == version(pin)


def test_whatever_installs_packages_does_it_by_the_locks() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    said = [line.strip() for path in scripts for line in path.read_text("utf-8").splitlines() if "install " in line]
    by_pip = [line for line in said if re.search(r"\bpip(_in)?\b", line) and not line.startswith("die ")]
    assert by_pip
    for line in by_pip:
        # uv only writes the locks, which are read before they are used.
        assert "--require-hashes" in line or "--no-deps" in line or "--upgrade uv" in line, line
