"""Ask the kernel whether IPsec takes packets that leave (linux/xfrm.h)."""

from __future__ import annotations

import struct
from typing import Final

from polywan.core.errors import KernelError
from polywan.kernel.netlink.socket import Message, NetlinkSocket, attributes

_NETLINK_XFRM: Final = 6
_GET_COUNTS: Final = 0x25  # XFRM_MSG_GETSPDINFO
_COUNTS: Final = 1  # XFRMA_SPD_INFO
_INFO: Final = struct.Struct("=IIIIII")  # struct xfrmu_spdinfo: in, out, forward, and those of sockets


def in_use() -> bool:
    """True when there is an IPsec policy for packets that leave; False where the kernel has no IPsec, or hides it."""
    try:
        with NetlinkSocket(_NETLINK_XFRM) as netlink:
            answer = netlink.query(_GET_COUNTS, bytes(4))
    except KernelError:
        return False
    counts = attributes(answer.body, 4).get(_COUNTS, b"") if isinstance(answer, Message) else b""
    return len(counts) >= _INFO.size and _INFO.unpack_from(counts)[1] > 0
