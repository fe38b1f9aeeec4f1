"""Completion for shells, by click: the shell asks the command what may follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from polywan.cli import group

_SHELLS: Final[tuple[tuple[type[ShellComplete], str], ...]] = (
    (BashComplete, "bash-completion/completions/polywan"),
    (ZshComplete, "zsh/vendor-completions/_polywan"),
    (FishComplete, "fish/vendor_completions.d/polywan.fish"),
)


def scripts() -> Mapping[str, str]:
    """Return the script for each shell, by its place below /usr/share."""
    return {place: _script(kind) for kind, place in _SHELLS}


def _script(kind: type[ShellComplete]) -> str:
    # Not `kind.source`: the one for bash first starts bash to ask for its version.
    complete = kind(group, {}, "polywan", "_POLYWAN_COMPLETE")
    return ShellComplete.source(complete).strip() + "\n"
