"""Carry out the steps of fixes, in order, and say what came of each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shlex import join
from typing import Final

from polywan.api.doctor import Finding, Step
from polywan.child import CLEAN
from polywan.core.errors import NotPermitted, PolywanError

_PATIENCE: Final = 60.0
"""Seconds for one step: a service may take its time to restart."""


def steps(findings: Sequence[Finding]) -> tuple[Step, ...]:
    """Return what would be done for all of them; what several need is done once."""
    return tuple(dict.fromkeys(step for finding in findings if finding.fix for step in finding.fix.steps))


def shown(step: Step) -> str:
    """Return the step as an administrator would type it."""
    if step.command:
        return join(step.command)
    lines = step.text.rstrip("\n").splitlines()
    says = f"{lines[0]!r}" if len(lines) == 1 else f"{len(lines)} lines"
    return f"{'add to' if step.append else 'write'} {step.path}: {says}"


def carry_out(step: Step) -> None:
    """Do one step.

    Raises:
        NotPermitted: this user may not.
        PolywanError: it failed; the text says how.
    """
    try:
        _run(step.command) if step.command else _write(step)
    except PermissionError as error:
        raise NotPermitted(f"{shown(step)}: {error.strerror}: use sudo") from error
    except OSError as error:
        raise PolywanError(f"{shown(step)}: {error.strerror}") from error


def _run(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(
            command, env={**CLEAN}, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PolywanError(f"{join(command)}: it did not end within {_PATIENCE:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
        raise PolywanError(f"{join(command)}: {words[-1] if words else f'exit status {done.returncode}'}")


def _write(step: Step) -> None:
    """Add a text once, or put a file in the place of another in one piece."""
    path = Path(step.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if step.append:
        there = path.read_text("utf-8", "replace") if path.exists() else ""
        if step.text in there:
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(step.text if not there or there.endswith("\n") else f"\n{step.text}")
        return
    beside = path.with_name(f".{path.name}.polywan")
    beside.write_text(step.text, "utf-8")
    os.replace(beside, path)
