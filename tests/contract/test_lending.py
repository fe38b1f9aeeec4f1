"""Sockets of nfnetlink are lent while somebody keeps them, and closed when nobody does."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

import pytest

from polywan.core.errors import KernelError
from polywan.kernel.netlink import lending
from polywan.kernel.netlink.socket import NetlinkSocket
from polywan.lab.namespaces import Namespace

_GET_CHAIN = 10 << 8 | 4
_GET_NOTHING = 10 << 8 | 0xFE


@pytest.fixture(autouse=True)
def nobody_else_keeps_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_idle", {})


def is_open(netlink: NetlinkSocket) -> bool:
    return netlink.fileno() >= 0


def test_a_socket_is_closed_behind_whoever_borrowed_it_where_none_are_kept() -> None:
    with lending.netfilter() as netlink:
        assert is_open(netlink)
    assert not is_open(netlink)


def test_a_socket_that_is_kept_serves_the_next_question() -> None:
    here = lending.keep()
    with lending.netfilter() as first, lending.netfilter() as second:
        assert first is not second
    with lending.netfilter() as third:
        assert third in (first, second)
    lending.close(here)
    assert not any(map(is_open, (first, second)))


def test_they_are_kept_until_the_last_one_who_wants_them_is_done() -> None:
    here, again = lending.keep(), lending.keep()
    with lending.netfilter() as netlink:
        pass
    lending.close(here)
    assert is_open(netlink)
    lending.close(again)
    assert not is_open(netlink)


def test_one_that_is_in_the_middle_of_an_answer_is_closed() -> None:
    here = lending.keep()
    with lending.netfilter() as netlink:
        netlink.quiet = False
    assert not is_open(netlink)
    lending.close(here)


def test_one_whose_answer_never_came_is_closed() -> None:
    here = lending.keep()
    with lending.netfilter() as netlink:
        netlink.set_option(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1000))
        with pytest.raises(KernelError):
            netlink._receive()
    assert not is_open(netlink)
    lending.close(here)


def test_an_answer_that_is_left_half_way_closes_it() -> None:
    here = lending.keep()
    with lending.netfilter() as netlink:
        next(iter(netlink.dump(_GET_CHAIN, bytes(4))), None)
        unfinished = not netlink.quiet
    assert is_open(netlink) is not unfinished
    lending.close(here)


@pytest.mark.netns
def test_sockets_are_kept_for_one_namespace_each() -> None:
    here = lending.keep()
    spare = Namespace("lent")
    spare.create()
    try:
        with lending.netfilter() as own:
            pass
        with spare.entered(), lending.netfilter() as theirs:
            assert theirs is not own
        assert not is_open(theirs)
        assert is_open(own)
    finally:
        spare.delete()
        lending.close(here)


def test_no_more_are_kept_than_one_process_needs_at_once() -> None:
    here = lending.keep()
    with ExitStack() as stack:
        lent = [stack.enter_context(lending.netfilter()) for _ in range(lending._MOST + 2)]
    assert sum(map(is_open, lent)) == lending._MOST
    lending.close(here)


def test_a_refusal_ends_an_answer() -> None:
    here = lending.keep()
    with lending.netfilter() as netlink, pytest.raises(KernelError):
        list(netlink.dump(_GET_NOTHING, bytes(4)))
    assert is_open(netlink)
    lending.close(here)
