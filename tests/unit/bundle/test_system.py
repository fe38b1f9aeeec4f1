"""What a bundle says of the machine."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from polywan.bundle import system


@pytest.mark.parametrize("described", [True, False], ids=["installed by pip", "in the tree of a package"])
def test_the_libraries_are_named_with_their_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: bool
) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    if not described:
        monkeypatch.setattr(metadata, "requires", absent)
    assert f"pydantic {metadata.version('pydantic')}\n" in system.versions(tmp_path)


def test_of_an_installation_by_pip_nothing_else_is_named(tmp_path: Path) -> None:
    assert "pytest" not in system.versions(tmp_path)
