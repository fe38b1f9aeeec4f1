"""Writes what the packaged program says of itself. Runs by the packaged tree, not by the checkout's environment."""

from __future__ import annotations

import json
from pathlib import Path

from deb import completion, manual
from polywan.config.reference.json_schema import json_schema


def main(into: str, date: str) -> None:
    """Write everything below a folder, as it is to be below /usr/share."""
    place = Path(into)
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    texts = {"polywan/schema.json": schema, **completion.scripts()}
    for name, text in manual.pages(date).items():
        texts[f"man/man{name[-1]}/{name}"] = text
    for name, text in texts.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
