"""Tracked connections and their uplinks: what `polywan flows --json` is made from. Fields are added, never changed."""

from typing import TypeAlias

from polywan.api.document import Document

Cells: TypeAlias = tuple[str | int | float | None, ...]
"""Values of a connection in the order of the columns."""


class Total(Document):
    """What the connections of an uplink add up to; bytes are None where the kernel counted none."""

    uplink: str
    connections: int
    bytes_up: int | None
    bytes_down: int | None


class Flows(Document):
    """Tracked connections.

    Attributes:
        schema: version of the document.
        columns: names of the values of each connection.
        flows: connections, each as its values in that order.
        totals: by uplink, of all that were asked for, also where fewer are listed.
        total: number of these; None from an older daemon.
    """

    schema: int
    columns: tuple[str, ...]
    flows: tuple[Cells, ...]
    totals: tuple[Total, ...]
    total: int | None = None
