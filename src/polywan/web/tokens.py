"""Tokens by which a visitor shows what he may do, as values: only their hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, TypeAlias

from polywan.core.versions import VERSION_KEY, Migration

Scope: TypeAlias = Literal["read", "act"]

SCOPES: Final[Mapping[Scope, tuple[Scope, ...]]] = {"read": ("read",), "act": ("read", "act")}
"""What each kind of token is good for."""

TOKEN_BYTES: Final = 32
"""Of chance, so that nobody finds one by trying, and a plain hash of it tells nothing."""

TOKEN_PREFIX: Final = "pw_"  # noqa: S105 - it is the same for all
"""Programs that look for secrets in texts know a token by it."""

MOST_TOKENS: Final = 200

TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LATEST: Final = 253_370_764_800.0
"""The year 9999, up to which Python has dates."""


def _without_version(_: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ValueError("it says no version")  # no polywan has written that


TOKEN_MIGRATIONS: Final[tuple[Migration, ...]] = (_without_version,)
"""For `versions.upgraded`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token.

    Attributes:
        name: for people.
        digest: SHA-256 of its text, in hexadecimal.
        scope: "act" may read as well.
        created: Unix seconds.
        expires: Unix seconds; None if it is good until it is revoked.
    """

    name: str
    digest: str
    scope: Scope
    created: float
    expires: float | None

    def is_good(self, now: float) -> bool:
        """True until it expires."""
        return self.expires is None or now < self.expires


def digest_of(text: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def shown_as(text: str, tokens: Iterable[Token], now: float) -> Token | None:
    """Return the token whose text was shown, None if there is none or it has expired.

    Whatever is shown, each token is compared, and none takes another time because it is nearly right.
    """
    digest = digest_of(text)
    found = [token for token in tokens if hmac.compare_digest(token.digest, digest)]
    return next((token for token in found if token.is_good(now)), None)


def tokens_stored(tokens: Iterable[Token]) -> dict[str, Any]:
    """Return tokens as JSON has them."""
    return {VERSION_KEY: len(TOKEN_MIGRATIONS), "tokens": [asdict(token) for token in tokens]}


def tokens_restored(document: Mapping[str, Any]) -> tuple[Token, ...]:
    """Return the tokens that a document holds.

    Raises:
        ValueError: polywan has not written it.
    """
    listed = document.get("tokens")
    if not isinstance(listed, list) or len(listed) > MOST_TOKENS:
        raise ValueError("its tokens are no list")
    found = tuple(_restored(one) for one in listed)
    if len({token.name for token in found}) != len(found):
        raise ValueError("two tokens have one name")
    return found


def _restored(value: object) -> Token:
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Token)}:
        raise ValueError("a token has other keys than expected")
    name, digest, scope, created, expires = (value[field.name] for field in fields(Token))
    good = (
        isinstance(name, str)
        and TOKEN_NAME.fullmatch(name)
        and isinstance(digest, str)
        and _DIGEST.fullmatch(digest)
        and scope in ("read", "act")
        and _is_moment(created)
        and (expires is None or _is_moment(expires))
    )
    if not good:
        raise ValueError("a token makes no sense")
    return Token(name=name, digest=digest, scope=scope, created=created, expires=expires)


def _is_moment(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST
