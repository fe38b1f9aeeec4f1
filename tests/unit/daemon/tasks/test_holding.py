"""The second table is made, and made later when the kernel refuses it at first."""

from __future__ import annotations

import logging

import pytest

from polywan.core.errors import KernelError
from polywan.core.ruleset.fast_path import FAST_TABLE
from polywan.core.ruleset.model import Chain, NftTable
from polywan.core.ruleset.second_table import KEEP_TABLE
from polywan.daemon.tasks.holding import Holder
from polywan.kernel.fake.kernel import FakeKernel

TABLE, OTHER = NftTable(chains={}), NftTable(chains={"forward": Chain(())})


class Refusing(FakeKernel):
    """Refuses the table for as long as it has a reason to."""

    why = "Operation not supported"
    asked = 0
    refuses_tables = False

    def hold(self, name: str, table: NftTable | None) -> None:
        self.asked += 1
        if self.why or (table is not None and self.refuses_tables):
            raise KernelError("nft", 95, self.why)
        super().hold(name, table)


def test_a_refusal_is_told_once_and_ends_when_the_table_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "polywan")
    kernel = Refusing()
    holder = Holder(kernel)
    holder.hold(KEEP_TABLE, TABLE)
    holder.again()
    assert len(caplog.records) == 1
    assert "will break connections" in holder.problem
    kernel.why = ""
    holder.again()
    assert (kernel.held, holder.problem) == ({KEEP_TABLE: TABLE}, "")


def test_a_fast_path_that_is_refused_takes_the_one_before_with_it() -> None:
    kernel = Refusing()
    kernel.why = ""
    holder = Holder(kernel)
    holder.hold(KEEP_TABLE, TABLE)
    holder.hold(FAST_TABLE, TABLE)
    kernel.refuses_tables = True
    holder.hold(FAST_TABLE, OTHER)
    assert (set(kernel.held), holder.problem) == ({KEEP_TABLE}, "")
    assert holder.slow.startswith("every packet takes the slow path")
    kernel.refuses_tables = False
    holder.hold(KEEP_TABLE, TABLE)
    holder.again()
    assert (kernel.held, holder.slow) == ({KEEP_TABLE: TABLE, FAST_TABLE: OTHER}, "")


def test_nothing_is_asked_again_once_the_table_is_there() -> None:
    kernel = Refusing()
    kernel.why = ""
    holder = Holder(kernel)
    holder.again()
    holder.hold(KEEP_TABLE, TABLE)
    holder.again()
    assert kernel.asked == 1
