"""The hook that checks commit messages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / "scripts/hooks/commit-msg"


def accepted(message: str, tmp_path: Path) -> bool:
    file = tmp_path / "message"
    file.write_text(message, encoding="utf-8")
    return subprocess.run([HOOK, file], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "message",
    [
        "core: reset dead connections before routing\n\nOtherwise the first packet is lost.\n",
        "core/health: ask a full queue more often",
        "Merge branch 'rooms'",
        f"docs: {'x' * 66}",
    ],
)
def test_a_message_of_the_right_form_passes(message: str, tmp_path: Path) -> None:
    assert accepted(message, tmp_path)


@pytest.mark.parametrize(
    "message",
    [
        "Reset dead connections before routing",
        "core: Reset dead connections",
        "core: reset dead connections.",
        f"docs: {'x' * 67}",
        "core: reset dead connections\nbecause they hang",
    ],
)
def test_any_other_is_refused(message: str, tmp_path: Path) -> None:
    assert not accepted(message, tmp_path)
