"""Who a visitor is, and what he may do: by his token, or because he is on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request

from polywan.core.errors import ControlError
from polywan.web.hosts import Address, Known, authority
from polywan.web.token_files import TokenFile
from polywan.web.tokens import SCOPES, Scope, Token

log = logging.getLogger("polywan")

WRONG_TOKENS: Final = 10
"""Wrong tokens of one address in `WRONG_SPAN`, after which it gets no other answer; a right one is always taken."""

WRONG_SPAN: Final = 60.0
"""Seconds."""

_MOST_ADDRESSES: Final = 1000
"""That are remembered for wrong tokens; the oldest is forgotten."""

_PROXIED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""What a proxy adds: whoever asks through it is not on this machine."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who asks: the name and scopes of his token; nameless without one."""

    name: str
    scopes: tuple[Scope, ...]
    token: Token | None


class Door:
    """Says who a visitor is.

    Args:
        tokens: those that are good.
        tokens_only: ask visitors of this machine for a token as well.
        clock: tells Unix seconds.
    """

    def __init__(self, tokens: TokenFile, *, tokens_only: bool, clock: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._tokens_only = tokens_only
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}
        self._told_at = float("-inf")

    def visitor(self, request: Request, scope: Scope) -> Visitor:
        """Return who asks, if he may do what is asked for.

        Raises:
            ControlError: a page of another site asks (403), a token is missing or wrong (401), it may not do that
                (403), or too many wrong ones came from there (429).
        """
        if is_foreign(request.headers):
            raise ControlError("a page of another site asks for this", 403)
        found = self._shown(request)
        if scope in found.scopes:
            return found
        if found.token is None:
            raise ControlError(f"this needs a token: polywan web token add NAME --scope {scope}", 401)
        raise ControlError(f"the token {found.name} may only read: polywan web token add NAME --scope act", 403)

    def still(self, visitor: Visitor) -> bool:
        """True while a visitor may go on with what he does."""
        return visitor.token is None or self._tokens.is_good(visitor.token, self._clock())

    def _shown(self, request: Request) -> Visitor:
        fields = request.headers.getlist("authorization")
        if not fields:
            return Visitor("", ("read",) if self._is_here(request) else (), None)
        kind, _, text = fields[0].partition(" ")
        now = self._clock()
        token = self._tokens.shown(text.strip(), now) if len(fields) == 1 and kind.lower() == "bearer" else None
        if token is not None:
            return Visitor(token.name, SCOPES[token.scope], token)
        self._count(request.scope["state"]["peer"], now)
        raise ControlError("the token is wrong, revoked or expired: polywan web token list", 401)

    def _is_here(self, request: Request) -> bool:
        """Tell whether somebody on this machine asks, as far as that can be known."""
        state = request.scope["state"]
        proxied = any(name in request.headers for name in _PROXIED)
        return not self._tokens_only and state["local"] and state["known"] is not Known.NAME and not proxied

    def _count(self, peer: Address, now: float) -> None:
        """Remember a wrong token; raise when there were too many."""
        # A host of IPv6 has a network for itself.
        key = str(ip_network((peer, 64), strict=False)) if isinstance(peer, IPv6Address) else str(peer)
        since, count = self._wrong.pop(key, (now, 0))
        if not 0 <= now - since < WRONG_SPAN:
            since, count = now, 0
        self._wrong[key] = since, count + 1
        if len(self._wrong) > _MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        if count < WRONG_TOKENS:
            return
        if not 0 <= now - self._told_at < WRONG_SPAN:
            self._told_at = now
            log.warning("web.refused: more than %d wrong tokens in a minute came from %s", WRONG_TOKENS, peer)
        raise ControlError("too many wrong tokens came from this address: wait a minute", 429)


def is_foreign(headers: Headers) -> bool:
    """True when another site's page asks: browsers say so, other programs say nothing."""
    return headers.get("sec-fetch-site", "") not in ("", "same-origin", "none")


def check_action(request: Request) -> None:
    """Refuse an order that a page of another site may have made a browser send: a form cannot have these fields.

    Raises:
        ControlError: it does not come as our page sends it (403, 415).
    """
    headers = request.headers
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ControlError("an order is JSON: expected Content-Type: application/json", 415)
    if headers.get("x-polywan") != "1":
        raise ControlError("an order has the header X-Polywan: 1", 403)
    if not all(_is_ours(origin, request) for origin in headers.getlist("origin")):
        raise ControlError("a page of another site asks for this", 403)


def _is_ours(origin: str, request: Request) -> bool:
    scheme, _, rest = origin.partition("://")
    found, asked = authority(rest), request.scope["state"]["asked"]
    # Behind a proxy it is the proxy that has TLS.
    if found is None or scheme not in _PORTS or (request.scope["scheme"] == "https" and scheme == "http"):
        return False
    usual = _PORTS[scheme]
    return found.host == asked.host and (found.port or usual) == (asked.port or usual)
