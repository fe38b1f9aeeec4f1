"""The file's vocabulary: frozen models, a loader that places every problem, schema and docs made from them.

The names below are imported when they are first used: a client of the daemon needs the errors only, and pydantic
is half of the start-up time of a command.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polywan.config.errors import ConfigError, Problem
    from polywan.config.loading.loader import (
        Loaded,
        file_text,
        file_texts,
        load,
        load_as_if,
        load_text,
        load_texts,
        load_with_warnings,
        names_below,
        paths_beside,
        readable_texts,
    )
    from polywan.config.model.config import (
        Affinity,
        Bandwidth,
        Config,
        FwMark,
        GlobalSettings,
        HealthOverrides,
        HealthSettings,
        Hooks,
        Match,
        Member,
        Owner,
        Policy,
        Snat,
        SteeringRule,
        Uplink,
        Window,
    )

_HOME = {
    "ConfigError": "errors",
    "Loaded": "loading.loader",
    "Problem": "errors",
    "file_text": "loading.loader",
    "file_texts": "loading.loader",
    "load": "loading.loader",
    "load_as_if": "loading.loader",
    "load_text": "loading.loader",
    "load_texts": "loading.loader",
    "load_with_warnings": "loading.loader",
    "names_below": "loading.loader",
    "paths_beside": "loading.loader",
    "readable_texts": "loading.loader",
}

__all__ = [
    "Affinity",
    "Bandwidth",
    "Config",
    "ConfigError",
    "FwMark",
    "GlobalSettings",
    "HealthOverrides",
    "HealthSettings",
    "Hooks",
    "Loaded",
    "Match",
    "Member",
    "Owner",
    "Policy",
    "Problem",
    "Snat",
    "SteeringRule",
    "Uplink",
    "Window",
    "file_text",
    "file_texts",
    "load",
    "load_as_if",
    "load_text",
    "load_texts",
    "load_with_warnings",
    "names_below",
    "paths_beside",
    "readable_texts",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"polywan.config.{_HOME.get(name, 'model.config')}"), name)
    globals()[name] = value
    return value
