"""Options of queueing disciplines, classes and filters as the kernel wants and shows them (linux/pkt_sched.h). Pure.

Only what `core/shaping/trees.py` sets is written, and only that is read back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from polywan.core.shaping.trees import MTU
from polywan.kernel.netlink.socket import attribute, attributes, number, u32

Options: TypeAlias = Mapping[str, int]

_U64: Final = struct.Struct("=Q")
_CAKE_RATE, _CAKE_RAW = 2, 12
_CAKE: Final = {"diffserv": 3, "cells": 4, "hosts": 5, "overhead": 6, "nat": 11, "mpu": 14, "ingress": 15}
"""Attributes of cake that hold a 32-bit number."""

_RATESPEC: Final = struct.Struct("=BBHhHI")  # struct tc_ratespec
_HTB: Final = struct.Struct("=IIIII")  # what follows two of them in struct tc_htb_opt
_HTB_GLOBAL: Final = struct.Struct("=IIIII")  # struct tc_htb_glob
_HTB_PARMS, _HTB_INIT, _HTB_RATE64, _HTB_CEIL64 = 1, 2, 6, 7
_HTB_VERSION, _RATE_TO_QUANTUM = 3, 10
_ETHERNET: Final = 1  # TC_LINKLAYER_ETHERNET
_TICK: Final = 64e-9
"""Seconds of one tick, in which bursts are written (PSCHED_SHIFT)."""
_BURST: Final = 0.001
"""Seconds of sending that may be made up for: a timer that is late by less costs no throughput."""

_CODEL_TARGET, _CODEL_INTERVAL = 1, 3
_PRIO: Final = struct.Struct("=I16s")  # struct tc_prio_qopt
_U32_CLASS, _U32_SELECTOR = 1, 5
_SELECTOR: Final = struct.Struct(">BBBBHHhhI")  # struct tc_u32_sel
_KEY: Final = struct.Struct(">II")
_KEY_PLACE: Final = struct.Struct("=ii")
_TERMINAL: Final = 1


def encode(kind: str, options: Options) -> bytes:
    """Return the contents of TCA_OPTIONS for a part of that kind."""
    match kind:
        case "cake":
            rest = b"".join(number(_CAKE[name], options[name]) for name in _CAKE if name in options)
            raw = number(_CAKE_RAW, 0) if "raw" in options else b""
            return attribute(_CAKE_RATE, _U64.pack(options["bandwidth"] // 8)) + raw + rest
        case "htb":
            settings = _HTB_GLOBAL.pack(_HTB_VERSION, _RATE_TO_QUANTUM, options["default"], 0, 0)
            return attribute(_HTB_INIT, settings)
        case "class":
            return _htb_class(options["rate"] // 8)
        case "fq_codel":
            return number(_CODEL_TARGET, 1000 * options["target"]) + number(_CODEL_INTERVAL, 1000 * options["interval"])
        case "prio":
            bands = options["priomap"].to_bytes(8, "big").hex()
            return _PRIO.pack(options["bands"], bytes(int(band, 16) for band in bands))
        case "u32":
            selector = _SELECTOR.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0)
            key = _KEY.pack(options["mask"], options["value"]) + _KEY_PLACE.pack(0, 0)
            return number(_U32_CLASS, options["class"]) + attribute(_U32_SELECTOR, selector + key)
        case _:
            raise ValueError(kind)


def _htb_class(rate: int) -> bytes:
    """Encode a class by its rate in bytes per second."""
    short = min(rate, 0xFFFF_FFFF)
    spec = _RATESPEC.pack(0, _ETHERNET, 0, 0, 0, short)
    ticks = min(0xFFFF_FFFF, round((_BURST + MTU / rate) / _TICK))
    body = attribute(_HTB_PARMS, spec + spec + _HTB.pack(ticks, ticks, MTU, 0, 0))
    if short < rate:
        body += attribute(_HTB_RATE64, _U64.pack(rate)) + attribute(_HTB_CEIL64, _U64.pack(rate))
    return body


def decode(kind: str, payload: bytes) -> tuple[tuple[str, int], ...]:
    """Return what the kernel shows of the options that `encode` writes; what it does not show is left out."""
    reader = _READERS.get(kind)
    return () if reader is None else tuple(reader(payload).items())


def _cake(payload: bytes) -> dict[str, int]:
    found = attributes(payload)
    numbers = {n: u32(found[kind]) for n, kind in _CAKE.items() if kind in found}
    rate = {"bandwidth": 8 * _u64(found.get(_CAKE_RATE, b""))}
    # In the order in which a tree has them.
    order = ("diffserv", "hosts", "nat", "raw", "overhead", "cells", "mpu", "ingress")
    known = rate | numbers | ({"raw": 1} if _CAKE_RAW in found else {})
    return {name: known[name] for name in ("bandwidth", *order) if name in known}


def _htb(payload: bytes) -> dict[str, int]:
    settings = attributes(payload).get(_HTB_INIT, b"")
    return {"default": _HTB_GLOBAL.unpack_from(settings)[2]} if len(settings) >= _HTB_GLOBAL.size else {}


def _class(payload: bytes) -> dict[str, int]:
    found = attributes(payload)
    parms = found.get(_HTB_PARMS, b"")
    if len(parms) < 2 * _RATESPEC.size:
        return {}
    rate, ceil = (_RATESPEC.unpack_from(parms, place)[5] for place in (0, _RATESPEC.size))
    rate, ceil = _u64(found.get(_HTB_RATE64, b"")) or rate, _u64(found.get(_HTB_CEIL64, b"")) or ceil
    return {"rate": 8 * rate} if rate == ceil else {"rate": 8 * rate, "ceil": 8 * ceil}


def _fq_codel(payload: bytes) -> dict[str, int]:
    found = attributes(payload)
    # The kernel keeps units of 1024 ns, and shows 4999 µs of 5 ms.
    target, interval = (round(u32(found.get(kind, b"")) / 1000) for kind in (_CODEL_TARGET, _CODEL_INTERVAL))
    return {"target": target, "interval": interval}


def _prio(payload: bytes) -> dict[str, int]:
    if len(payload) < _PRIO.size:
        return {}
    bands, priomap = _PRIO.unpack_from(payload)
    if max(priomap) > 15:
        return {"bands": bands}
    return {"bands": bands, "priomap": int("".join(f"{band:x}" for band in priomap), 16)}


def _u32(payload: bytes) -> dict[str, int]:
    found = attributes(payload)
    selector = found.get(_U32_SELECTOR, b"")
    if len(selector) != _SELECTOR.size + _KEY.size + _KEY_PLACE.size:
        return {}
    mask, value = _KEY.unpack_from(selector, _SELECTOR.size)
    if any(_KEY_PLACE.unpack_from(selector, _SELECTOR.size + _KEY.size)):
        return {}
    return {"value": value, "mask": mask, "class": u32(found.get(_U32_CLASS, b""))}


def _u64(payload: bytes) -> int:
    return int(_U64.unpack(payload)[0]) if len(payload) == _U64.size else 0


_READERS: Final[Mapping[str, Callable[[bytes], dict[str, int]]]] = {
    "cake": _cake,
    "htb": _htb,
    "class": _class,
    "fq_codel": _fq_codel,
    "prio": _prio,
    "u32": _u32,
}
