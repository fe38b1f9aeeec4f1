"""A file half read: its parts, before they are held against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polywan.config.model.config import GlobalSettings
from polywan.config.model.hooks import Hooks
from polywan.config.model.policy import Policy
from polywan.config.model.steering_rule import SteeringRule
from polywan.config.model.uplink import HealthSettings, Uplink


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a file, each read for itself; None is a part with faults that other checks depend on."""

    uplinks: Mapping[str, Uplink | None]
    health: HealthSettings | None
    policies: Mapping[str, Policy | None]
    rules: tuple[SteeringRule | None, ...]
    global_: GlobalSettings | None
    hooks: Hooks | None
