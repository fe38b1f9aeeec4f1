"""Tokens on disk: one file that the command writes and the server reads, one that the server writes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from polywan import files
from polywan.core.errors import BusyError, NotPermitted, PolywanError
from polywan.core.versions import upgraded
from polywan.core.words import printable
from polywan.web.tokens import TOKEN_MIGRATIONS, Token, shown_as, tokens_restored, tokens_stored

log = logging.getLogger("polywan")

TOKENS_FILE: Final = "tokens.json"
USES_FILE: Final = "last-used.json"

_LARGEST: Final = 1 << 18
_COST: Final = "no token is good"
_USES_EACH: Final = 60.0
"""Seconds between two records of the use of a token."""

_LOCK_TIMEOUT: Final = 5.0


class TokenFile:
    """What the server knows of the tokens; the file is read again whenever it is another one.

    Args:
        directory: of the page's state.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: object = None
        self._problem = ""
        self._tokens: tuple[Token, ...] = ()
        self._uses = dict(uses_of(directory))

    def shown(self, text: str, now: float) -> Token | None:
        """Return the token that a visitor shows, None if it is not good; that it was used is recorded."""
        found = shown_as(text, self._current(), now)
        # After a correction of the clock, the last use may be of the future.
        if found is not None and not 0 <= now - self._uses.get(found.digest, float("-inf")) < _USES_EACH:
            self._uses[found.digest] = now
            self._record()
        return found

    def is_good(self, token: Token, now: float) -> bool:
        """True for a token that is neither revoked nor expired."""
        return token in self._current() and token.is_good(now)

    def _current(self) -> tuple[Token, ...]:
        try:
            status = os.lstat(self._directory / TOKENS_FILE)
            # Who owns it and may read it changes its ctime only.
            seen: object = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        except OSError as error:
            seen = error.errno
        if seen != self._seen:
            try:
                self._tokens, self._seen, self._problem = tokens_of(self._directory), seen, ""
            except PolywanError as error:
                # What ails it may be the directory, or a want of descriptors: the file does not tell when that is over.
                self._tokens, self._seen = (), None
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.warning("tokens.unreadable: %s", printable(self._problem))
        return self._tokens

    def _record(self) -> None:
        kept = {token.digest for token in self._tokens}
        self._uses = {digest: at for digest, at in self._uses.items() if digest in kept}
        with suppress(OSError):
            files.exchange(self._directory / USES_FILE, json.dumps(self._uses).encode())


def tokens_of(directory: Path) -> tuple[Token, ...]:
    """Return the tokens of a directory; none where there is no file.

    Raises:
        PolywanError: the file cannot be read, or polywan has not written it.
    """
    try:
        return tokens_restored(upgraded(_read(directory, TOKENS_FILE), TOKEN_MIGRATIONS, TOKENS_FILE, _COST))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(directory / TOKENS_FILE, error) from error


def uses_of(directory: Path) -> Mapping[str, float]:
    """Return when tokens were used last, in Unix seconds by their digests; whatever is not known is not there."""
    try:
        found = _read(directory, USES_FILE)
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: float(at) for key, at in found.items() if type(at) in (int, float) and 0 <= at < 1e11}


@contextmanager
def changing(directory: Path, owner: tuple[int, int] | None) -> Iterator[list[Token]]:
    """Have the tokens as a list that is written when the context ends, unless an error ends it.

    Args:
        directory: made if it is not there.
        owner: user and group of a directory that is made; None for our own.

    Raises:
        BusyError: another program changes them.
        NotPermitted: this user may not.
        PolywanError: the file cannot be read or written.
    """
    try:
        if not directory.exists():
            directory.mkdir(mode=0o700)
            if owner is not None:
                os.chown(directory, *owner)
        with _locked(directory):
            found = list(tokens_of(directory))
            yield found
            _write(directory, found)
    except OSError as error:
        raise _unusable(directory, error) from error


def _write(directory: Path, tokens: Sequence[Token]) -> None:
    status = directory.stat()
    content = json.dumps(tokens_stored(tokens), indent=1).encode()
    files.exchange(directory / TOKENS_FILE, content, owner=(status.st_uid, status.st_gid))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BusyError(f"another program is changing the tokens in {directory}; try again") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _read(directory: Path, name: str) -> Any:
    with os.fdopen(files.open_own(directory, name), "rb") as file:
        return json.loads(file.read(_LARGEST))


def _unusable(path: Path, error: Exception) -> PolywanError:
    if isinstance(error, OSError):
        text = f"{path}: {(error.strerror or str(error)).lower()}"
        if isinstance(error, PermissionError) and not isinstance(error, files.ForeignError):
            return NotPermitted(f"{text}: use sudo, or a directory of your own by --state-dir")
        return PolywanError(text)
    why = "brackets are nested too deeply" if isinstance(error, RecursionError) else str(error)
    return PolywanError(f"{path} cannot be used ({why}): move it away, and make new tokens")
