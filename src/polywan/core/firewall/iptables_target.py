"""What targets of iptables-extensions(8) do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    Action,
    ActionOther,
    MarkOf,
    Offload,
    Restore,
    Save,
    SetMark,
    Translate,
    Verdict,
)
from polywan.core.firewall.values import marked, whole_number

_Options = Sequence[tuple[str, tuple[str, ...]]]

_TRANSLATIONS: Final[Mapping[str, Literal["masquerade", "snat", "dnat", "redirect", "tproxy", "netmap"]]] = {
    "MASQUERADE": "masquerade",
    "SNAT": "snat",
    "DNAT": "dnat",
    "REDIRECT": "redirect",
    "TPROXY": "tproxy",
    "NETMAP": "netmap",
}
_HARMLESS: Final = frozenset(
    {"AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "CT", "DSCP", "ECN", "HL", "IDLETIMER", "LED", "LOG", "NFLOG"}
    | {"NOTRACK", "RATEEST", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"}
)
"""Extensions after which the next rule follows, and that change no mark."""


def target_actions(name: str, options: _Options, text: str) -> tuple[list[Action], Verdict]:
    """Return what an extension does, and what follows.

    Args:
        name: the target's.
        options: of the target, with their values.
        text: all of it.
    """
    if name in _TRANSLATIONS:
        return [Translate(_TRANSLATIONS[name], text)], "accept"
    if name == "FLOWOFFLOAD":
        return [Offload()], ""
    if name in ("MARK", "CONNMARK"):
        try:
            return [_written("packet" if name == "MARK" else "connection", options)], ""
        except (ValueError, IndexError):
            return [ActionOther(text, harmless=False)], ""
    return [ActionOther(text, harmless=name in _HARMLESS)], ""


def _written(of: MarkOf, options: _Options) -> Action:
    """Return what MARK or CONNMARK writes.

    Raises:
        ValueError, IndexError: the options make no sense.
    """
    said = dict(options)
    if of == "connection" and ("--save-mark" in said) != ("--restore-mark" in said):
        nfmask, ctmask = (_mask(said, name) for name in ("--nfmask", "--ctmask"))
        if "--save-mark" in said:
            return Save(nfmask, ~ctmask & ALL_MARK_BITS)
        return Restore(ctmask, ~nfmask & ALL_MARK_BITS)
    ((option, values),) = said.items()
    if (write := _WRITES.get(option)) is None:
        raise ValueError(option)
    value, mask = write(values[0])
    return SetMark(of, value, mask)


def _mask(said: Mapping[str, tuple[str, ...]], name: str) -> int:
    values = said.get(name) or said.get("--mask")
    return whole_number(values[0], ALL_MARK_BITS) if values else ALL_MARK_BITS


def _set_mark(text: str) -> tuple[int, int]:
    value, mask = marked(text)
    return value, mask | value


def _or_mark(text: str) -> tuple[int, int]:
    bits = whole_number(text, ALL_MARK_BITS)
    return bits, bits


def _and_mark(text: str) -> tuple[int, int]:
    return 0, ~whole_number(text, ALL_MARK_BITS) & ALL_MARK_BITS


def _xor_mark(text: str) -> tuple[int, int]:
    return whole_number(text, ALL_MARK_BITS), 0


_WRITES: Final[Mapping[str, Callable[[str], tuple[int, int]]]] = {
    "--set-mark": _set_mark,
    "--set-xmark": marked,
    "--or-mark": _or_mark,
    "--and-mark": _and_mark,
    "--xor-mark": _xor_mark,
}
