import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polywan.config import Config, HealthOverrides, HealthSettings, load
from polywan.config.model.base import Model
from polywan.config.model.introspect import keys_of, table_in
from polywan.config.reference.json_schema import json_schema
from polywan.config.reference.markdown import main, markdown

ROOT = Path(__file__).parents[4]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))


def models(model: type[Model] = Config) -> Iterator[type[Model]]:
    yield model
    for field in keys_of(model).values():
        if table := table_in(field):
            yield from models(table)


def resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: dict[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
        node = found
    return node


def fits(schema: dict[str, Any], node: dict[str, Any], value: object) -> bool:
    """A small part of JSON Schema: types, choices, properties, items."""
    node = resolve(schema, node)
    if "anyOf" in node:
        return any(fits(schema, option, value) for option in node["anyOf"])
    if "enum" in node:
        return value in node["enum"]
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if not isinstance(value, kinds[node["type"]]):
        return False
    if isinstance(value, list):
        return all(fits(schema, node["items"], item) for item in value)
    if isinstance(value, dict):
        named = node.get("properties", {})
        rest = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
        return all(key in value for key in node.get("required", ())) and all(
            fits(schema, named[key], item) if key in named else isinstance(rest, dict) and fits(schema, rest, item)
            for key, item in value.items()
        )
    return True


def test_the_reference_in_docs_is_what_the_models_say() -> None:
    stale = (ROOT / "docs/config.md").read_text(encoding="utf-8") != markdown()
    assert not stale, "run: python -m polywan.config.reference.markdown"


def test_the_reference_can_be_written(tmp_path: Path) -> None:
    assert main([str(tmp_path / "config.md")]) == 0
    assert (tmp_path / "config.md").read_text(encoding="utf-8") == markdown()


def test_every_key_is_described_with_the_reason_of_its_default() -> None:
    bare = [
        f"{model.__name__}.{key}"
        for model in models()
        for key, field in keys_of(model).items()
        if not field.description or "efault" not in field.description
    ]
    assert not bare


def test_every_key_of_health_can_be_overridden_by_an_uplink() -> None:
    assert list(keys_of(HealthOverrides)) == list(keys_of(HealthSettings))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_loads(path: Path) -> None:
    assert load(path).uplinks


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_an_example_fits_the_schema(path: Path) -> None:
    schema = json_schema()
    assert fits(schema, schema, tomllib.loads(path.read_text(encoding="utf-8")))


def test_there_are_examples() -> None:
    assert {p.name for p in EXAMPLES} >= {"five-lines.toml", "router.toml", "host.toml", "pppoe.toml"}


@pytest.mark.parametrize(
    "text",
    [
        "[uplinks.a]",
        "[uplinks.a]\ninterface = 5",
        '[uplinks.a]\ninterface = "x"\nfrob = 1',
        '[uplinks.a]\ninterface = "x"\nweight = "3"',
        '[uplinks.a]\ninterface = "x"\n[policies.p]\ntiers = ["a"]',
    ],
)
def test_the_schema_tells_wrong_files_from_right_ones(text: str) -> None:
    schema = json_schema()
    assert not fits(schema, schema, tomllib.loads(text))


def test_the_schema_names_keys_as_the_file_does() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == {"uplinks", "health", "policies", "rules", "global", "hooks"}
    assert {"from", "not"} <= set(schema["$defs"]["SteeringRule"]["properties"])


def test_the_schema_describes_every_key_and_knows_no_null() -> None:
    schema = json_schema()
    properties = [p for d in schema["$defs"].values() for p in d.get("properties", {}).values()]
    assert all("description" in p for p in properties)
    assert "null" not in str(schema)
