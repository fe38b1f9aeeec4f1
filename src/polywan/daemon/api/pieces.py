"""Write a document with a long list as JSON in small pieces.

One call of the JSON library for all of it would keep the interpreter, and with it every probe, waiting for its whole
length.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from polywan.api.codec import encode
from polywan.api.document import Document

_PIECE: Final = 250
"""Entries that are written at once: half a millisecond."""

_BLOCK: Final = 1 << 18
"""Bytes from which on a piece of a document is sent on its way."""


def with_rows(whole: Callable[[], Document], key: str, rows: Iterable[object]) -> Iterator[bytes]:
    """Yield a document as JSON in pieces, with these rows in its list `key`.

    Args:
        whole: returns it with an empty list; what is behind the list may be another thing after the last row.
        key: of the list.
        rows: documents or lists.
    """
    head, _ = around(whole(), key)
    for block in _blocks(rows):
        yield head + block
        head = b""
    yield around(whole(), key)[1]


def around(whole: Document, key: str) -> tuple[bytes, bytes]:
    """Return the JSON of a document before and after what is in its list `key`, which is empty in it."""
    head, found, tail = json.dumps(encode(whole), separators=(",", ":")).partition(f'"{key}":[')
    return f"{head}{found}".encode(), tail.encode()


def _blocks(rows: Iterable[object]) -> Iterator[bytes]:
    """Yield rows as JSON in blocks, at least one, with commas between them."""
    block, comma = bytearray(), b""
    for text in _texts(rows):
        block += comma + text
        comma = b","
        if len(block) > _BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _texts(rows: Iterable[object]) -> Iterator[bytes]:
    source = iter(rows)
    while some := list(islice(source, _PIECE)):
        yield json.dumps(some, separators=(",", ":"))[1:-1].encode()
