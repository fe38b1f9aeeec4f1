"""Secrets in a text: by the name before them, by their place in a URL, and by their form.

A secret that was found anywhere is replaced everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_STAND_IN: Final = re.compile(r"masked-[0-9]+")
_WORD: Final = (
    r"(?P<key>passw(?:or)?d|passphrase|passcode|(?<![a-z])(?:pass|pwd|pin|puk)(?![a-z])|secret|token|api[_-]?key|psk"
    r"|(?:private|preshared|access|auth|encryption|shared|signing)[_-]?key|(?<=[a-z0-9])[_-]key(?![a-z])"
    r"|authorization|credential|cookie|webhook|community)"
)
_NAMED: Final = rf"{_WORD}[\w-]{{0,40}}"
_ASSIGNED: Final = rf"{_NAMED}[\\\"']{{0,2}}[ \t]*[:=][ \t]*"
_FLAG: Final = rf"(?<![\w-])--?(?:[a-z0-9]{{1,20}}[_-]){{0,4}}{_NAMED}"
_USER: Final = r"(?<![\w-])(?P<key>-u|--user|--proxy-user)"
_PAIR: Final = r"(?=[^\s\"':,]+:)"
_LISTED: Final = r"[\"'][ \t]*,\s*(?P<quote>[\"'])"
_TO_QUOTE: Final = r"(?P<value>(?:\\.|(?!(?P=quote))[^\\\n])+)(?P=quote)"
"""Arguments of a program are texts in a list, or words in a line."""

_BY_NAME: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        rf"{_ASSIGNED}(?P<quote>\"{{3}}|'{{3}})(?P<value>.*?)(?P=quote)",
        rf"{_ASSIGNED}\"(?!\"\")(?P<value>(?:\\.|[^\"\\\n])+)\"",
        rf"{_ASSIGNED}'(?!'')(?P<value>[^'\n]+)'",
        # JSON in a string.
        rf"{_ASSIGNED}\\\"(?P<value>(?:[^\"\\\n]|\\[^\"])+?)\\\"",
        rf"{_NAMED}\"?[ \t]*[:=][ \t]*(?P<value>[0-9]{{4,}})(?![^\s,;#}}\]])",
        rf"{_NAMED}[ \t]*=[ \t]*(?P<value>(?![0-9.:+-]+(?:[\s,;#}}\]]|$))[^\s\"'\\,;&#{{}}\[\]()]+)",
        # As in headers: up to the end of the line.
        rf"{_NAMED}:[ \t]*(?:(?:bearer|basic|digest|token)[ \t]+)?(?P<value>[^\s\"'\\{{\[](?:[^\"'\\\n]|\\[^\"\n])*)",
        rf"{_FLAG}{_LISTED}{_TO_QUOTE}",
        rf"{_FLAG}[ \t]+[\"']?(?P<value>[^\s\"'\\,;-][^\s\"'\\,;]*)",
        rf"{_USER}{_LISTED}{_PAIR}{_TO_QUOTE}",
        rf"{_USER}(?:[ \t]+[\"']?|=){_PAIR}(?P<value>[^\s\"']+)",
        r"\b(?P<key>passw(?:or)?d|passphrase|psk)[ \t]+(?P<value>[^\s\"'\\=:,;{}\[\]][^\s\"'\\,;{}\[\]]*)",
    )
)
_NAMES: Final = re.compile(f"{_WORD}|-u|--(?:proxy-)?user".replace("?P<key>", "?:"), re.IGNORECASE)
_BY_FORM: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?P<value>-----BEGIN [A-Z ]{1,40}-----.{0,20000}?-----END [A-Z ]{1,40}-----)",
        r"(?i:\b(?P<key>bearer|basic|digest)[ \t]+)(?P<value>[\w.~+/=-]{8,})",
        r"(?P<value>\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)",
        r"(?P<value>\b(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-|sk[-_]|AKIA|AIza)[\w-]{12,})",
        # Keys of 32 bytes, as WireGuard writes them; and what is long and of all kinds of letters.
        r"(?<![\w+/=])(?P<value>[A-Za-z0-9+/]{43}=)(?![\w+/=])",
        r"(?<![\w+/=-])(?P<value>(?=[\w+-]*[0-9])(?=[\w+-]*[a-z])(?=[\w+-]*[A-Z])[\w+-]{32,}={0,2})(?![\w+/=-])",
    )
)
_URL: Final = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]{1,20}://)(?P<user>[^\s/\"'@\\<>?#]*@)?(?P<host>[^\s/\"'@\\<>?#]*)"
    r"(?P<path>[^\s\"'\\<>?#]*)(?P<query>\?[^\s\"'\\<>#]*)?",
    re.IGNORECASE,
)
_CALLS: Final = re.compile(
    r"hook|/bot|ntfy|telegram|discord|slack|pushover|hc-ping|healthchecks|uptime|/push", re.IGNORECASE
)
"""In a URL whose path is a secret: who knows it may send messages."""

_SEGMENT: Final = re.compile(r"(?<=/)(?=[\w~:%.-]*[0-9])(?=[\w~:%.-]*[A-Za-z])[\w~:%.-]{16,}")
_QUERY: Final = re.compile(r"(?<=[?&])(?P<key>[^=&]{1,60})=(?P<value>[^&]+)")

_SHORTEST: Final = 4
_LONGEST: Final = 60
"""Characters of a beginning that are looked for, where a message has shortened what it shows."""

_HARMLESS: Final = frozenset({"true", "false", "null", "none", "yes", "no"})
_LONG_ENOUGH: Final = 8
"""Characters from which on a secret is looked for everywhere; a shorter one might be part of any word."""


class SecretPlace(NamedTuple):
    """Where a secret was: part of the bundle, line from 1, and the name before it or what it was found by."""

    part: str
    line: int
    key: str


@dataclass(slots=True)
class Secrets:
    """The secrets of several texts.

    Attributes:
        numbers: the number in the stand-in, by secret.
        places: where each was found, once for each place.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    places: list[SecretPlace] = field(default_factory=list)

    def hidden(self, part: str, text: str) -> str:
        """Return a text of that part without its secrets; lines stay where they are."""
        if "://" in text:
            text = _URL.sub(lambda match: self._url(part, line_of(match), match), text)
        # Most texts have none of the names: one look tells.
        for pattern in (*(_BY_NAME if _NAMES.search(text) else ()), *_BY_FORM):
            text = pattern.sub(self._replacing(part), text)
        return text

    def everywhere(self, text: str) -> str:
        """Return a text without the secrets that were found in any text."""
        forms = {form: secret for secret in self.numbers for form in _forms(secret)}
        if not forms:
            return text
        longest_first = sorted(forms, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)))
        text = pattern.sub(lambda match: self._stand_in(forms[match[0]]), text)
        *shortened, rest = text.split("…")
        return "…".join((*(self._without_beginning(piece, forms) for piece in shortened), rest))

    def _without_beginning(self, text: str, forms: Mapping[str, str]) -> str:
        """Replace the beginning of a secret that messages have shortened."""
        for length in range(min(len(text), _LONGEST), _SHORTEST - 1, -1):
            ending = text[-length:]
            for form, secret in forms.items():
                if form.startswith(ending):
                    return text[:-length] + self._stand_in(secret)
        return text

    def _replacing(self, part: str) -> Callable[[re.Match[str]], str]:
        def replaced(match: re.Match[str]) -> str:
            value = match["value"]
            if _STAND_IN.fullmatch(value.strip()) or value.lower() in _HARMLESS:
                return match[0]
            new = f"1{'0' * (len(value) - 1)}" if value.isdecimal() else self._stand_in(value)
            if new == value:
                return match[0]
            key = match.groupdict().get("key") or "its form"
            self.places.append(SecretPlace(part, line_of(match), key.lstrip("_").lower()))
            start, end = match.start("value") - match.start(), match.end("value") - match.start()
            return match[0][:start] + new + match[0][end:]

        return replaced

    def _stand_in(self, secret: str) -> str:
        number = self.numbers.setdefault(secret, len(self.numbers) + 1)
        return f"masked-{number}" + "\n" * secret.count("\n")

    def _url(self, part: str, line: int, match: re.Match[str]) -> str:
        def new(value: str, key: str) -> str:
            if _STAND_IN.fullmatch(value) or not value:
                return value
            self.places.append(SecretPlace(part, line, key))
            return self._stand_in(value)

        user, path, query = match["user"] or "", match["path"], match["query"] or ""
        if user:
            user = f"{new(user[:-1], 'user in a URL')}@"
        if len(path) > 1 and _CALLS.search(match["host"] + path):
            path = f"/{new(path[1:], 'path of a URL')}"
        else:
            path = _SEGMENT.sub(lambda found: new(found[0], "path of a URL"), path)
        query = _QUERY.sub(lambda found: f"{found['key']}={new(found['value'], 'query of a URL')}", query)
        return f"{match['scheme']}{user}{match['host']}{path}{query}"


def line_of(match: re.Match[str]) -> int:
    """Return the line, from 1, at which a match begins."""
    return match.string.count("\n", 0, match.start()) + 1


def _forms(secret: str) -> Iterator[str]:
    """Yield how a secret may be spelled elsewhere: as it was, without escapes, and with those of JSON."""
    if len(secret) < _LONG_ENOUGH or secret.isalpha() or secret.isdecimal():
        return
    yield secret
    plain = _unescaped(secret)
    for spelled in (plain, json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]):
        if len(spelled) >= _LONG_ENOUGH:
            yield spelled


def _unescaped(secret: str) -> str:
    try:
        return str(json.loads(f'"{secret}"'))
    except ValueError:
        return secret
