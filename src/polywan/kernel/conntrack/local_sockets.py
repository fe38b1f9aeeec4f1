"""Sockets of this box: found by their addresses and ended, over sock_diag(7)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Final

from polywan.core.errors import KernelError
from polywan.core.net import Family
from polywan.kernel.conntrack.challenge_ack import End
from polywan.kernel.netlink.socket import AF, Message, NetlinkSocket, Request, attributes

_SOCK_DIAG: Final = 4

# linux/sock_diag.h and linux/inet_diag.h.
_BY_FAMILY: Final = 20
_DESTROY: Final = 21
_TCP: Final = 6
_REQUEST: Final = struct.Struct("=BBBBI")
_ANSWER: Final = struct.Struct("=BBBB")
_IDENTITY: Final = struct.Struct(">HH16s16s")
_ANY_DEVICE_ANY_COOKIE: Final = bytes(4) + b"\xff" * 8
_IDENTITY_SIZE: Final = _IDENTITY.size + len(_ANY_DEVICE_ANY_COOKIE)
_TIME_WAIT, _LISTEN = 6, 10
_INFO, _WANTED, _ANSWER_SIZE = 2, 2, 72
"""INET_DIAG_INFO; place of `idiag_ext` in the question; size of struct inet_diag_msg."""
_EVERY_STATE: Final = 0xFFFF_FFFF


def destroy(ends: Sequence[End], family: Family) -> list[bool]:
    """End the sockets at these ends; return for each whether that was done.

    Their programs get ECONNABORTED from whatever they wait in. Not done is what has no socket any more.

    Raises:
        KernelError: the kernel refused: EOPNOTSUPP without ``CONFIG_INET_DIAG_DESTROY``.
    """
    if not ends:
        return []
    with NetlinkSocket(_SOCK_DIAG) as netlink:
        found = [_identity(netlink.query(_BY_FAMILY, question(end, family))) for end in ends]
        requests = [Request(_DESTROY, 0, _request(family) + identity) for identity in found if identity]
        refusals = netlink.batch(requests)
    for refused in refusals:
        # Gone by itself meanwhile is as good.
        if refused is not None and refused.errno != errno.ENOENT:
            raise KernelError("close sockets", refused.errno, refused.text)
    return [bool(identity) for identity in found]


def question(end: End, family: Family) -> bytes:
    """Return the body that asks for the socket at an end (struct inet_diag_req_v2)."""
    identity = _IDENTITY.pack(end.port, end.peer_port, end.address, end.peer)
    return _request(family) + identity + _ANY_DEVICE_ANY_COOKIE


def identity(answer: bytes) -> bytes:
    """Return what names the very socket of an answer, its cookie included; empty when it is not to be ended.

    Without a connected socket the kernel answers with the one that listens on the port, and would end that.
    """
    if len(answer) < _ANSWER.size + _IDENTITY_SIZE or answer[1] in {_TIME_WAIT, _LISTEN}:
        return b""
    return answer[_ANSWER.size : _ANSWER.size + _IDENTITY_SIZE]


def _identity(reply: object) -> bytes:
    return identity(reply.body) if isinstance(reply, Message) else b""


def _request(family: Family) -> bytes:
    return _REQUEST.pack(AF[family], _TCP, 0, 0, _EVERY_STATE)


def tcp_info(end: End, family: Family) -> bytes:
    """Return the kernel's account of the socket at an end (struct tcp_info); empty when there is no such socket.

    Raises:
        KernelError: the kernel cannot be asked.
    """
    body = bytearray(question(end, family))
    body[_WANTED] = 1 << (_INFO - 1)
    with NetlinkSocket(_SOCK_DIAG) as netlink:
        reply = netlink.query(_BY_FAMILY, bytes(body))
    if not isinstance(reply, Message) or not identity(reply.body):
        return b""
    return attributes(reply.body, _ANSWER_SIZE).get(_INFO, b"")
