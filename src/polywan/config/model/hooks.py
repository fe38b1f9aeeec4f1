"""Programs of the administrator's that are called when something becomes of an uplink."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from polywan.config.kinds.scalars import Duration
from polywan.config.model.base import Command, Model, Seconds


class Hooks(Model):
    """Programs that are called when something becomes of an uplink; docs/guide/hooks.md has what they are told."""

    up: Command | None = Field(
        default=None,
        description="Called when an uplink begins to serve, up or degraded: program and arguments, such as "
        '["/etc/polywan/hooks/mail", "admin@example.com"], or a path alone. It runs without a shell, as the daemon\'s '
        "user, in a clean environment that says what happened (UPLINK, STATE, REASON, ADDRESS and others). Default: "
        "none.",
    )
    down: Command | None = Field(
        default=None,
        description="Called when an uplink that served is down, or its device is missing. Default: none.",
    )
    degraded: Command | None = Field(
        default=None,
        description="Called when an uplink that was up is degraded: slow, lossy, busy, or without one of its families. "
        "Default: none.",
    )
    recovered: Command | None = Field(
        default=None, description="Called when an uplink that was degraded is up. Default: none."
    )
    disabled: Command | None = Field(
        default=None,
        description="Called when people take an uplink out of use: STATE is disabled, draining or drained. Default: "
        "none.",
    )
    address: Command | None = Field(
        default=None,
        description="Called when an uplink has another address or gateway, in whatever state it is; for a dynamic DNS "
        "client, for example. Default: none.",
    )
    all_down: Command | None = Field(
        default=None,
        description="Called when the last uplink that served does so no more; UPLINK names it. Default: none.",
    )
    any_up: Command | None = Field(
        default=None, description="Called when one uplink serves again after none did. Default: none."
    )
    quota: Command | None = Field(
        default=None,
        description="Called when a limit of an uplink's quota is passed, and when it is within its limits again; "
        "REASON has the numbers. Default: none.",
    )
    timeout: Annotated[Seconds, Duration(1, 600)] = Field(
        default=30.0,
        description="Time that one call may take; then it and its process group are killed. Default "
        "30s: a mail over the remaining uplink takes seconds, and what hangs must not hold up the calls behind it.",
    )

    def command(self, hook: str) -> tuple[str, ...] | None:
        """Return program and arguments of the hook of that key; None when there is none."""
        found: tuple[str, ...] | None = getattr(self, hook)
        return found
