"""nftables by libnftables (libnftables(3)): text in, one transaction each; our table out, as a value.

The library and not the ``nft`` command: an update takes 0.04-0.3 ms instead of 5-20 ms.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from ctypes import CDLL, c_bool, c_char_p, c_int, c_uint32, c_void_p
from typing import Final

from polywan.core.errors import KernelError, MissingFeature
from polywan.core.ruleset.model import TABLE, Key, NftState, unread
from polywan.kernel.heap import trim
from polywan.kernel.netlink import lending
from polywan.kernel.netlink.socket import NETFILTER, NetlinkSocket
from polywan.kernel.nft.reader import read as read_outline

LIBRARY: Final = "libnftables.so.1"
MISSING_LIBRARY: Final = (
    "libnftables (Debian: libnftables1 / nftables, Fedora: nftables, Arch: nftables, Alpine: nftables)"
)

TRIMMED: Final = 1 << 17
"""Characters of transactions after which memory is given back; libnftables needs some thirty bytes for each."""

_JSON: Final = 1 << 4
_NUMERIC: Final = 1 << 7 | 1 << 8 | 1 << 9  # protocols, priorities and symbols as numbers
_SIGNALS: Final = signal.valid_signals()
_ERRNOS: Final = {os.strerror(number): number for number in errno.errorcode}


class Nftables:
    """One libnftables context, opened at the first use. Safe to use from several threads.

    From then on until it is closed, questions to nfnetlink share sockets that stay open (`kernel/netlink/lending.py`).

    Every method that talks to the library raises `MissingFeature` when the library is not installed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: CDLL | None = None
        self._context: int | None = None
        self._lending: int | None = None
        self._run = 0

    def run(self, text: str) -> None:
        """Run the text as one transaction.

        Raises:
            KernelError: nft or the kernel refused; nothing changed.
        """
        with self._lock:
            self._run += len(text)
            self._command(text, 0)

    def list_table(self) -> NftState | None:
        """Read our table, without the elements of sets that are never compared; None when there is none.

        Each change is followed by a read, so this is where its memory is given back, if it was a large one or one of
        many: after that the next change has to ask the kernel for each page again, half a millisecond of a failover.

        Raises:
            KernelError: the kernel refused.
        """
        try:
            outline = read_outline()
            if outline is None:
                return None
            known = outline.elements
            # Sets that we do not make; somebody else did, in our table.
            odd = [name for name in (*outline.sets, *outline.maps) if name not in known and not unread(name)]
            with self._lock if odd else nullcontext():
                others = {name: self._elements("map" if name in outline.maps else "set", name) for name in odd}
        except KernelError as e:
            if e.errno == errno.ENOENT:  # somebody removed it while we read
                return None
            raise
        if self._run > TRIMMED:
            self._run = 0
            trim()
        return NftState(
            chains=outline.chains,
            sets={n: others[n].sets[n] if n in others else frozenset(known.get(n, ())) for n in outline.sets},
            maps={n: others[n].maps[n] if n in others else known.get(n, {}) for n in outline.maps},
        )

    def _elements(self, kind: str, name: str) -> NftState:
        return decode(json.loads(self._command(f"list {kind} {TABLE} {name}", _JSON | _NUMERIC)))

    def close(self) -> None:
        """Free the context."""
        with self._lock:
            if self._library is not None and self._context is not None:
                self._library.nft_ctx_free(self._context)
            self._library = self._context = None
            if self._lending is not None:
                lending.close(self._lending)
            self._lending = None

    def _command(self, text: str, flags: int) -> str:
        library, context = self._open()
        if "\0" in text:
            raise KernelError("nft", errno.EINVAL, "the text contains a NUL character")
        library.nft_ctx_output_set_flags(context, flags)
        with _without_signals():
            failed = library.nft_run_cmd_from_buffer(context, text.encode("utf-8", "replace"))
        output = _text(library.nft_ctx_get_output_buffer(context))
        complaint = _text(library.nft_ctx_get_error_buffer(context))
        if failed:
            raise refusal(complaint)
        return output

    def _open(self) -> tuple[CDLL, int]:
        if self._library is None or self._context is None:
            # The library ends the process when it cannot open its socket; this raises instead.
            NetlinkSocket(NETFILTER).close()
            self._library = _load()
            self._context = self._library.nft_ctx_new(0)
            if not self._context:
                raise KernelError("nft", errno.ENOMEM, "no context")
            self._library.nft_ctx_buffer_output(self._context)
            self._library.nft_ctx_buffer_error(self._context)
            self._lending = lending.keep() if self._lending is None else self._lending
        return self._library, self._context


def _load() -> CDLL:
    try:
        library = CDLL(LIBRARY)
    except OSError as e:
        raise MissingFeature(MISSING_LIBRARY) from e
    for name, result, arguments in (
        ("nft_ctx_new", c_void_p, [c_uint32]),
        ("nft_ctx_free", None, [c_void_p]),
        ("nft_ctx_output_set_flags", None, [c_void_p, c_int]),
        ("nft_ctx_buffer_output", c_bool, [c_void_p]),
        ("nft_ctx_buffer_error", c_bool, [c_void_p]),
        ("nft_ctx_get_output_buffer", c_char_p, [c_void_p]),
        ("nft_ctx_get_error_buffer", c_char_p, [c_void_p]),
        ("nft_run_cmd_from_buffer", c_int, [c_void_p, c_char_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def _without_signals() -> Iterator[None]:
    """Hold this thread's signals back (pthread_sigmask(3)).

    The library takes a signal that comes while it waits for the kernel's answer for a failure, although the kernel has
    the transaction and carries it out.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _text(buffer: bytes | None) -> str:
    return (buffer or b"").decode("utf-8", "replace")


def refusal(complaint: str) -> KernelError:
    """Turn nft's complaint (message, text, carets) into an error; its errno is found by its words."""
    lines = [line for line in complaint.splitlines() if line.strip() and set(line.strip()) != {"^"}]
    first = lines[0] if lines else "refused without a message"
    message = first.partition("Error: ")[2] or first
    number = next((n for words, n in _ERRNOS.items() if words in message), 0)
    return KernelError("nft", number, " | ".join([message, *lines[1:4]]))


def decode(listing: Mapping[str, object]) -> NftState:
    """Decode the JSON of ``list set`` or ``list map`` (libnftables-json(5)); other kinds of objects are ignored."""
    sets: dict[str, frozenset[Key]] = {}
    maps: dict[str, Mapping[Key, str]] = {}
    for kind, item in _items(listing.get("nftables")):
        name = str(item.get("name"))
        if kind == "set":
            sets[name] = frozenset(_key(e) for e in _list(item.get("elem")))
        elif kind == "map":
            maps[name] = dict(_pair(e) for e in _list(item.get("elem")))
    return NftState(chains={}, sets=sets, maps=maps)


def _items(listing: object) -> Iterable[tuple[str, Mapping[str, object]]]:
    for entry in _list(listing):
        if isinstance(entry, dict):
            for kind, item in entry.items():
                if isinstance(item, dict):
                    yield str(kind), item


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _key(element: object) -> Key:
    if isinstance(element, dict) and isinstance(inner := element.get("elem"), dict):
        element = inner.get("val")
    if isinstance(element, int | str) and not isinstance(element, bool):
        return element
    if isinstance(element, dict) and isinstance(prefix := element.get("prefix"), dict):
        return f"{prefix.get('addr')}/{prefix.get('len')}"
    return json.dumps(element, sort_keys=True)


def _pair(element: object) -> tuple[Key, str]:
    if isinstance(element, list) and len(element) == 2:
        return _key(element[0]), _verdict(element[1])
    return _key(element), ""


def _verdict(value: object) -> str:
    """Text of a map's value: ``goto CHAIN``, ``accept``; whatever else there is becomes its JSON."""
    if isinstance(value, dict) and len(value) == 1:
        ((word, argument),) = value.items()
        if argument is None:
            return str(word)
        if isinstance(argument, dict) and argument.keys() == {"target"}:
            return f"{word} {argument['target']}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
