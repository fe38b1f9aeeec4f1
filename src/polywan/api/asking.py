"""Read what a request asks for, for whoever serves the calls of `calls.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from polywan.api.calls import Asked, Call, Stream
from polywan.api.codec import DocumentError, decode
from polywan.api.requests import Words


def asked_of(call: Call[Asked, Any] | Stream[Asked], said: Mapping[str, str], body: bytes) -> Asked:
    """Return what a client asks with.

    Args:
        call: the call, or the stream.
        said: words of the query, and parts of the path.
        body: what came behind the header, for a call that is asked by it.

    Raises:
        DocumentError: it makes no sense; the text says what was expected.
    """
    found: object = {"words": dict(said)} if call.asked is Words else dict(said)
    if isinstance(call, Call) and call.body:
        try:
            found = json.loads(body)
            # JSON may have what no answer and no file can have.
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DocumentError("it contains half a character (a surrogate)") from error
        except (ValueError, RecursionError):
            found = None
    try:
        return decode(call.asked, found)
    except DocumentError as error:
        wanted = f"expected a JSON object with {' and '.join(call.asked.__fields__)}"
        raise DocumentError(f"{wanted}; {error}" if isinstance(found, dict) else wanted) from error
