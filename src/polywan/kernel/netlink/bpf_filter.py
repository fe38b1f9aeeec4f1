"""Socket filters (bpf(4)) for messages of nfnetlink: what nobody here wants does not even wake the daemon."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from polywan.kernel.netlink.socket import NetlinkSocket

_SOL_SOCKET, _ATTACH_FILTER = 1, 26
_FPROG: Final = struct.Struct("@HP")  # struct sock_fprog
_STEP: Final = struct.Struct("=HBBI")  # struct sock_filter

# linux/bpf_common.h: A is the accumulator, X the index register.
_LOAD_NUMBER, _LOAD_WORD, _LOAD_NEXT_WORD, _LOAD_NEXT_BYTE = 0x00, 0x20, 0x40, 0x50
_INDEX_NUMBER, _INDEX_A = 0x01, 0x07
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_RETURN: Final = 0x06
_FIND: Final = 0xFFFF_F00C  # SKF_AD_NLATTR: A = offset of the attribute of type X, looked for from A on; or 0
_FIND_INSIDE: Final = 0xFFFF_F010  # SKF_AD_NLATTR_NEST: the same within the attribute at A

_SENDER: Final = 12  # nlmsg_pid
_ATTRIBUTES: Final = 20  # behind nlmsghdr and nfgenmsg
_PAYLOAD: Final = 4


class Step(NamedTuple):
    """One instruction; a comparison drops the message when its result is `drop_if`."""

    code: int
    number: int = 0
    drop_if: bool | None = None


def spontaneous() -> list[Step]:
    """Pass what the kernel did by itself, on nobody's request."""
    return [Step(_LOAD_WORD, _SENDER), Step(_EQUAL, 0, drop_if=False)]


def marked(kind: int, mask: int) -> list[Step]:
    """Pass messages whose attribute of that type, a number, has a bit of the mask."""
    return [*_found(kind), Step(_LOAD_NEXT_WORD, _PAYLOAD), Step(_ANY_BIT, mask, drop_if=False)]


def between(path: Sequence[int], least: int, most: int) -> list[Step]:
    """Pass messages whose attribute at the path, types from outside in, is a byte from `least` to `most`."""
    return [
        *_found(*path),
        Step(_LOAD_NEXT_BYTE, _PAYLOAD),
        Step(_AT_LEAST, least, drop_if=False),
        Step(_GREATER, most, drop_if=True),
    ]


def _found(*path: int) -> list[Step]:
    """Have X point to an attribute; drop messages without it."""
    steps = [Step(_LOAD_NUMBER, _ATTRIBUTES)]
    for kind, find in zip(path, (_FIND, *[_FIND_INSIDE] * len(path)), strict=False):
        steps += [Step(_INDEX_NUMBER, kind), Step(_LOAD_WORD, find), Step(_EQUAL, 0, drop_if=True)]
    return [*steps, Step(_INDEX_A)]


def attach(source: NetlinkSocket, steps: Sequence[Step]) -> None:
    """Have a socket receive what passes all steps, and nothing else.

    Raises:
        KernelError: the kernel refused.
    """
    program = assembled(steps)
    source.set_option(_SOL_SOCKET, _ATTACH_FILTER, _FPROG.pack(len(program), program.buffer_info()[0]))


def assembled(steps: Sequence[Step]) -> array[int]:
    """Return the program as the kernel takes it: the steps, then "pass", then "drop"."""
    count = len(steps)
    program = [
        _STEP.pack(
            step.code,
            count - place if step.drop_if is True else 0,
            count - place if step.drop_if is False else 0,
            step.number,
        )
        for place, step in enumerate(steps)
    ]
    everything, nothing = _STEP.pack(_RETURN, 0, 0, 0xFFFF_FFFF), _STEP.pack(_RETURN, 0, 0, 0)
    return array("Q", b"".join([*program, everything, nothing]))
