"""What a signal does to a transaction: nothing. libnftables gives up waiting for the kernel's answer at a signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import pytest

from polywan.kernel.nft.libnftables import Nftables
from polywan.lab.namespaces import Namespace

EVERY: Final = 0.0002
"""Seconds from one signal to the next; a transaction takes as long."""


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace("signals")
    made.create()
    try:
        yield made
    finally:
        made.delete()


@contextmanager
def signals() -> Iterator[list[int]]:
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        yield came
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_does_not_make_a_transaction_fail_and_is_not_lost(space: Namespace) -> None:
    chains = "\n".join(f"add chain inet polywan c{n}" for n in range(20))
    with space.entered(), closing(Nftables()) as nft, signals() as came:
        for _ in range(300):
            nft.run(f"add table inet polywan\n{chains}\ndelete table inet polywan")
    assert len(came) > 50


def test_signals_that_were_held_back_by_the_process_stay_so(space: Namespace) -> None:
    held = {signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        with space.entered(), closing(Nftables()) as nft:
            nft.run("add table inet polywan")
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | held
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
