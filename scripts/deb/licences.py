"""The licences of the wheels, for the file `copyright` (Debian's machine-readable form)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Final

from deb.errors import BuildError

_OWNED: Final = re.compile(r"^\s*(copyright\b.*\d.*)$", re.IGNORECASE | re.MULTILINE)


def paragraphs(tree: Path) -> str:
    """Return a paragraph for each distribution of a tree, with the text of its licence.

    Raises:
        BuildError: a wheel brings no licence.
    """
    return "\n".join(_paragraph(place) for place in sorted(tree.glob("*.dist-info")))


def _paragraph(described: Path) -> str:
    with (described / "METADATA").open(encoding="utf-8") as file:
        metadata = Parser().parse(file, headersonly=True)
    name = metadata["Name"]
    texts = [path.read_text(encoding="utf-8") for path in sorted(described.rglob("*")) if _is_licence(path)]
    if not texts:
        raise BuildError(f"{name}: the wheel brings no licence")
    files = " ".join(f"usr/lib/polywan/{top}" for top in _top(described))
    owners = list(
        dict.fromkeys(found for text in texts for found in re.findall(r"(?im)^\s*(copyright\b.*\d.*)$", text))
    )
    short = _short(metadata)
    return "".join((
        f"Files: {files}\n",
        f"Copyright: {_folded(owners or [metadata.get('Author') or metadata.get('Author-email') or name])}\n",
        f"License: {name}-{short}\n",
        _indented(texts),
    ))  # fmt: skip


def _is_licence(path: Path) -> bool:
    return path.is_file() and re.match(r"(?i)(licen[cs]e|copying)", path.name) is not None


def _top(described: Path) -> Iterator[str]:
    """Yield what belongs to a distribution, directly below the tree."""
    with (described / "RECORD").open(encoding="utf-8") as file:
        names = {line.split("/")[0].split(",")[0] for line in file}
    for name in sorted(names):
        yield f"{name}/*" if (described.parent / name).is_dir() else name


def _short(metadata: Message) -> str:
    found = metadata.get("License-Expression") or metadata.get("License")
    if not found or len(found.split()) > 3:
        classifiers = metadata.get_all("Classifier") or []
        names = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
        found = names[0] if names else "licence"
    return re.sub(r"[^A-Za-z0-9.+]+", "-", found).strip("-")


def _folded(lines: list[str]) -> str:
    return "\n           ".join(re.sub(r"\s+", " ", line).strip() for line in lines)


def _indented(texts: list[str]) -> str:
    lines = "\n.\n".join(text.strip() for text in texts).splitlines()
    return "".join(f" {line.rstrip()}\n" if line.strip() else " .\n" for line in lines)
