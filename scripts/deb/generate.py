"""Writes what the packaged program says of itself. Runs by the packaged tree, not by the checkout's environment."""

from __future__ import annotations

import json
from pathlib import Path

from polywan.config.reference.json_schema import json_schema


def main(into: str) -> None:
    """Write everything below a folder."""
    place = Path(into)
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    (place / "schema.json").write_text(schema, encoding="utf-8")
