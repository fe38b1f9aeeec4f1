"""Who uses the uplinks now. Fields are added, never changed."""

from collections.abc import Mapping

from polywan.api.document import Document


class ClientTotal(Document):
    """What the tracked connections of a client add up to; bytes are None where the kernel counted none.

    Attributes:
        client: its address.
        uplinks: connections by uplink.
    """

    client: str
    connections: int
    bytes_up: int | None
    bytes_down: int | None
    uplinks: Mapping[str, int]


class Clients(Document):
    """Clients with tracked connections, those that moved most first; `total`: how many there are."""

    schema: int
    clients: tuple[ClientTotal, ...]
    total: int
