"""Sockets of nfnetlink are lent while somebody keeps them, and closed when nobody does."""

from __future__ import annotations

import pytest

from polywan.core.errors import KernelError
from polywan.kernel.netlink import lending
from polywan.kernel.netlink.socket import NetlinkSocket

_GET_CHAIN = 10 << 8 | 4
_GET_NOTHING = 10 << 8 | 0xFE


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


def test_a_refusal_ends_an_answer() -> None:
    here = lending.keep()
    with lending.netfilter() as netlink, pytest.raises(KernelError):
        list(netlink.dump(_GET_NOTHING, bytes(4)))
    assert is_open(netlink)
    lending.close(here)
