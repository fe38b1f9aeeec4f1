"""The files of the page, read once at the start: nothing else is ever opened for a request."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

STATIC: Final = Path(__file__).parent / "static"

PAGE_FILE: Final = "index.html"

TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served at all, by the end of the name."""

_PACKED: Final = frozenset({".png", ".woff2", ".ico"})
"""What gzip does not make smaller."""

_REFUSED: Final = re.compile(r"q=0(\.0{0,3})?")
"""How a browser says that it does not take an encoding (RFC 9110, 12.4.2)."""

_FOREVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: what is in it, plain and as gzip has it (None where that is not smaller), its type and its ETag."""

    plain: bytes
    packed: bytes | None
    media_type: str
    etag: str


class Assets:
    """All files below a directory, by their path in it.

    A URL with the hash of all of them, `/static/~HASH/…`, never means anything else and may be kept for ever; the page
    itself names them so. Modules that import each other by relative names stay within that hash.

    Args:
        directory: with `index.html`.
    """

    def __init__(self, directory: Path) -> None:
        found = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file() and path.suffix in TYPES
        }
        whole = hashlib.sha256()
        for name, content in found.items():
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
        self.version = f"~{whole.hexdigest()[:20]}"
        if PAGE_FILE in found:
            found[PAGE_FILE] = found[PAGE_FILE].replace(b'="/static/', f'="/static/{self.version}/'.encode())
        self._files = {name: _asset(name, content) for name, content in found.items()}

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return self._answer(request, PAGE_FILE, _ASK_AGAIN)

    async def file(self, request: Request) -> Response:
        """Return one of the files."""
        path: str = request.path_params["path"]
        version, _, behind = path.partition("/")
        if version == self.version:
            return self._answer(request, behind, _FOREVER)
        # A page of an older version still has its URLs.
        return self._answer(request, behind if version.startswith("~") else path, _ASK_AGAIN)

    def _answer(self, request: Request, name: str, caching: str) -> Response:
        asset = self._files.get(name)
        if asset is None:
            return Response("there is no such file\n", 404, media_type="text/plain")
        fields = {"ETag": asset.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
        there = request.headers.get("if-none-match", "").split(",")
        if asset.etag in (tag.strip().removeprefix("W/") for tag in there):
            return Response(status_code=304, headers=fields)
        fields["Content-Type"] = asset.media_type
        if asset.packed is None or not _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(asset.plain, headers=fields)
        return Response(asset.packed, headers={**fields, "Content-Encoding": "gzip"})


def _asset(name: str, content: bytes) -> Asset:
    suffix = Path(name).suffix
    packed = None if suffix in _PACKED else gzip.compress(content, mtime=0)
    return Asset(
        content,
        packed if packed is not None and len(packed) < len(content) else None,
        TYPES[suffix],
        f'"{hashlib.sha256(content).hexdigest()[:20]}"',
    )


def _takes_gzip(accepted: str) -> bool:
    words = (word.partition(";") for word in accepted.lower().split(","))
    return any(coding.strip() == "gzip" and not _REFUSED.fullmatch(quality.strip()) for coding, _, quality in words)
