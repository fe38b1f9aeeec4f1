"""Run programs that print what they know, such as ip(8)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Final

from polywan.child import CLEAN
from polywan.core.errors import MissingFeature, PolywanError

PATIENCE: Final = 4.0
"""Seconds that a program may take: no check takes more than five."""


def output(command: Sequence[str], package: str) -> str:
    """Return what a program prints.

    Args:
        command: program and arguments.
        package: what brings the program, for people.

    Raises:
        MissingFeature: it is not installed.
        PolywanError: it fails, or takes too long.
    """
    try:
        done = subprocess.run(
            command, env={**CLEAN}, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError as error:
        raise MissingFeature(f"{command[0]} is not installed (package {package})") from error
    except subprocess.TimeoutExpired as error:
        raise PolywanError(f"{' '.join(command)} did not end within {PATIENCE:.0f} s") from error
    except OSError as error:
        raise PolywanError(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise PolywanError(f"{' '.join(command)}: {words[-1] if words else f'exit status {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


def listing(command: Sequence[str], package: str) -> object:
    """Return what a program prints as JSON; errors as `output`."""
    text = output(command, package)
    try:
        return json.loads(text) if text.strip() else []
    except ValueError as error:
        raise PolywanError(f"{' '.join(command)}: its output is no JSON") from error
