"""Connections from the document that has them as lists: by the names of the columns, checked, and fast."""

from typing import Any

import pytest

from polywan.api.codec import DocumentError
from polywan.api.flows import Cells, Flows
from polywan.api.views.flow_rows import FlowRow, rows_of
from polywan.core.world.conntrack import Flow

ROW = FlowRow(
    4, 6, "192.168.1.5", 40000, "203.0.113.9", 443, "203.0.113.9", 443, "100.64.1.2", 40000,
    "ESTABLISHED", 0x100, 75.5, 432000, 1200, 3_400_000, 10, 2300, 0, "fibre",
)  # fmt: skip


def changed(**values: Any) -> FlowRow:
    return ROW._replace(**values)


def document(*flows: Cells, columns: tuple[str, ...] = FlowRow._fields) -> Flows:
    return Flows(schema=1, columns=columns, flows=flows, totals=())


def test_a_row_is_a_tracked_connection_and_its_uplink() -> None:
    assert FlowRow._fields == (*Flow._fields, "uplink")


def test_rows_have_the_values_by_name() -> None:
    assert rows_of(document(tuple(ROW))) == [ROW]
    assert rows_of(document()) == []


def test_a_column_that_an_older_daemon_has_not_is_unknown() -> None:
    at = FlowRow._fields.index("fast")
    columns = tuple(name for name in FlowRow._fields if name != "fast")
    assert rows_of(document((*ROW[:at], *ROW[at + 1 :]), columns=columns)) == [changed(fast=None)]


def test_columns_are_found_by_name_whatever_else_a_newer_daemon_lists() -> None:
    turned = document(("?", *reversed(ROW)), columns=("zone", *reversed(FlowRow._fields)))
    (found,) = rows_of(turned)
    assert found == ROW
    assert found.uplink == "fibre"


def test_a_whole_number_is_an_age_too() -> None:
    assert rows_of(document(tuple(ROW._replace(age=75))))[0].age == 75


@pytest.mark.parametrize(
    ("flows", "columns", "text"),
    [
        ([tuple(ROW)], FlowRow._fields[:-3], "columns: there is no packets_down, uplink"),
        ([tuple(ROW), tuple(ROW)[:-1]], FlowRow._fields, "flows: expected 20 values of each connection"),
        ([tuple(ROW), tuple(changed(port="443"))], FlowRow._fields, "flows: port is of the wrong kind"),
        ([tuple(changed(client=None))], FlowRow._fields, "flows: client is of the wrong kind"),
    ],
)
def test_what_is_no_list_of_connections_is_refused(flows: list[Any], columns: tuple[str, ...], text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        rows_of(document(*flows, columns=columns))
    assert str(caught.value) == text
