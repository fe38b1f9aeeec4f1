"""From the tables of a file to its parts, with every fault in our own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from polywan.config.faults import ConfigFault, Path, shown, suggest
from polywan.config.kinds.scalars import ERROR_TYPE
from polywan.config.loading.parts import Parts
from polywan.config.model.base import NAME, Model
from polywan.config.model.config import Config, GlobalSettings
from polywan.config.model.hooks import Hooks
from polywan.config.model.introspect import expected_in, keys_of, model_at
from polywan.config.model.policy import Policy
from polywan.config.model.quota import Quota
from polywan.config.model.steering_rule import Match, SteeringRule
from polywan.config.model.uplink import HealthSettings, Uplink

M = TypeVar("M", bound=Model)

_ALONE: Final[Mapping[type[Model], frozenset[str]]] = {
    Uplink: frozenset(
        {"gateway", "gateway6", "source", "metered", "prefix6", "clamp_mss", "enabled", "health", "quota"}
    ),
    HealthSettings: frozenset({"methods", "tcp_port", "interval", "timeout", "fall", "rise", "hold_down"}),
    Policy: frozenset({"algorithm", "last_resort", "affinity"}),
    SteeringRule: frozenset(keys_of(Match)) - {"protocol"} | {"not"},
    GlobalSettings: frozenset({"priority", "forwarding"}),
    Hooks: frozenset(keys_of(Hooks)),
}
"""Keys whose absence cannot make another part look wrong."""

EXAMPLE: Final = """\
[uplinks.fibre]
interface = "eth1"
[uplinks.lte]
interface = "wwan0"
metered = true"""
"""A whole configuration, shown to those whose file has no uplinks."""


def read_parts(raw: Mapping[str, Any]) -> tuple[Parts, list[ConfigFault]]:
    """Read each part for itself, so that a fault in one does not hide those of the others."""
    faults: list[ConfigFault] = []
    known = keys_of(Config)
    faults += [ConfigFault((key,), "unknown key", suggest(key, known)) for key in raw if key not in known]
    rules = raw.get("rules", [])
    if not isinstance(rules, list):
        hint = "write [[rules]] with two brackets before each rule" if isinstance(rules, dict) else ""
        faults.append(ConfigFault(("rules",), f"expected a list of rules, got {shown(rules)}", hint))
        rules = []
    parts = Parts(
        uplinks=_named(Uplink, "uplinks", raw, faults),
        health=_read(HealthSettings, raw.get("health", {}), ("health",), faults),
        policies=_named(Policy, "policies", raw, faults),
        rules=tuple(_read(SteeringRule, rule, ("rules", i), faults) for i, rule in enumerate(rules)),
        global_=_read(GlobalSettings, raw.get("global", {}), ("global",), faults),
        hooks=_read(Hooks, raw.get("hooks", {}), ("hooks",), faults),
    )
    if raw.get("uplinks", {}) == {}:
        faults.append(
            ConfigFault(("uplinks",), "there are no uplinks; at least one is needed, for example", f"\n{EXAMPLE}\n")
        )
    return parts, faults


def _named(model: type[M], key: str, raw: Mapping[str, Any], faults: list[ConfigFault]) -> dict[str, M | None]:
    tables = raw.get(key, {})
    if not isinstance(tables, dict):
        faults.append(ConfigFault((key,), f"expected tables [{key}.NAME], got {shown(tables)}"))
        return {}
    for name, table in tables.items():
        if not isinstance(table, dict) and name in keys_of(model):
            faults.append(ConfigFault((key, name), f"is outside a table, expected [{key}.NAME] before it"))
            return {}
        try:
            NAME.parse(name)
        except PydanticCustomError as error:
            faults.append(ConfigFault((key, name), str((error.context or {})["message"])))
    return {name: _read(model, table, (key, name), faults) for name, table in tables.items()}


def _read(model: type[M], raw: object, path: Path, faults: list[ConfigFault]) -> M | None:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
    faults += [_fault(d, model, raw, path) for d in details]
    return _salvaged(model, raw, {d["loc"][0] if d["loc"] else "" for d in details})


def _salvaged(model: type[M], raw: object, faulty: set[int | str]) -> M | None:
    """Return the part without its faulty keys, if no check of the whole depends on them."""
    if not isinstance(raw, dict) or not faulty <= _ALONE[model]:
        return None
    return model.model_validate({key: value for key, value in raw.items() if key not in faulty})


def _fault(detail: ErrorDetails, model: type[Model], raw: object, base: Path) -> ConfigFault:
    place = _visible(raw, detail["loc"])
    path = (*base, *place)
    match detail["type"]:
        case kind if kind == ERROR_TYPE:
            context = detail["ctx"]
            return ConfigFault((*path, *context["at"]), context["message"], context["hint"])
        case "missing":
            key = str(detail["loc"][-1])
            table = model_at(model, detail["loc"][:-1])
            expected = expected_in(keys_of(table)[key]) if table else "a value"
            return ConfigFault((*path, key), f"is missing; expected {expected}")
        case "extra_forbidden":
            table = model_at(model, place[:-1])
            return ConfigFault(path, "unknown key", suggest(str(place[-1]), keys_of(table)) if table else "")
        case _:
            table = model_at(model, place) if detail["input"] is True else None
            required = table is Quota or (table is not None and any(f.is_required() for f in keys_of(table).values()))
            hint = f"write {path[-1]} = {{}} for the defaults" if table and not required else ""
            return ConfigFault(path, f"expected a table, got {shown(detail['input'])}", hint)


def _visible(raw: Any, location: Path) -> Path:
    """Return the beginning of a location that exists in the file.

    The rest stands for what was filled in: the list around a single value, the table around a member's name.
    """
    for depth, part in enumerate(location):
        listed = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if not listed and not (isinstance(raw, dict) and part in raw):
            return location[:depth]
        raw = raw[part]
    return location
