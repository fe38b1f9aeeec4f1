"""JSON Schema of the file, for editors that read ``#:schema polywan.schema.json`` in its first line (Taplo).

``python -m polywan.config.reference.json_schema > polywan.schema.json`` writes it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from polywan.config.model.config import Config


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of the whole file; keys are named as in TOML."""
    schema = Config.model_json_schema(by_alias=True)
    cleaned: dict[str, Any] = _without_null(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **cleaned,
        "title": "polywan",
        "description": "Configuration of polywan: /etc/polywan/polywan.toml and conf.d/*.toml.",
    }


def _without_null(node: Any) -> Any:
    """Drop what TOML cannot say: null as a value or as a default, and titles that only repeat the key."""
    if isinstance(node, list):
        return [_without_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: _without_null(value) for key, value in node.items() if not (key == "default" and value is None)}
    if isinstance(result.get("title"), str):
        del result["title"]
    options = [option for option in result.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        del result["anyOf"]
        return {**options[0], **result}
    return {**result, "anyOf": options} if options else result


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
