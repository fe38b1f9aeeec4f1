"""A TCP connection of this box, and whether its peer still answers: what was acknowledged when (tcp(7) TCP_INFO)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from polywan.core.net import Family, IPAddress
from polywan.kernel.conntrack import local_sockets
from polywan.kernel.conntrack.challenge_ack import End

_UNACKED: Final = struct.Struct("=24xI")
_LAST_ACK: Final = struct.Struct("=56xI")
_ACKED: Final = struct.Struct("=120xQ")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a connection is.

    Attributes:
        acknowledged: bytes that the peer has acknowledged since it began.
        waiting: segments that it has not acknowledged yet.
        silent: seconds since its last acknowledgement.
    """

    acknowledged: int
    waiting: int
    silent: float


def progress(local: IPAddress, local_port: int, peer: IPAddress, peer_port: int) -> Progress | None:
    """Return how far a connection of this box is; None when it has no socket, or the kernel does not tell.

    Raises:
        KernelError: the kernel cannot be asked.
    """
    end = End(local.packed, local_port, peer.packed, peer_port)
    found = local_sockets.tcp_info(end, Family(local.version))
    if not found and Family(local.version) is Family.V4:
        # A server that listens on IPv6 has clients of IPv4 on sockets of IPv6.
        mapped = End(_MAPPED + local.packed, local_port, _MAPPED + peer.packed, peer_port)
        found = local_sockets.tcp_info(mapped, Family.V6)
    if len(found) < _ACKED.size:
        return None
    return Progress(
        acknowledged=_ACKED.unpack_from(found)[0],
        waiting=_UNACKED.unpack_from(found)[0],
        silent=_LAST_ACK.unpack_from(found)[0] / 1000,
    )


_MAPPED: Final = bytes(10) + b"\xff\xff"
