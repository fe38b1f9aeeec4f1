"""What an order to an uplink would do, before it is given. Fields are added, never changed."""

from collections.abc import Mapping

from polywan.api.document import Document


class OrderEffect(Document):
    """What an order would do now.

    Attributes:
        uplink: its name.
        order: "disable", "drain", "enable" or "test".
        undo: the order that takes it back; None where nothing has to be.
        connections: that it has now.
        ended: of these, how many are ended at once.
        shares_before, shares_after: of new connections in policy `default`, by uplink, 0..1.
        unserved: titles of the policies that no uplink would serve then.
        text: all of it for people.
    """

    uplink: str
    order: str
    undo: str | None
    connections: int
    ended: int
    shares_before: Mapping[str, float]
    shares_after: Mapping[str, float]
    unserved: tuple[str, ...]
    text: tuple[str, ...]
