"""Clients that keep their uplink. Fields are added, never changed."""

from polywan.api.document import Document


class KeptClient(Document):
    """A client that keeps its uplink.

    Attributes:
        server: None when it keeps it whatever it talks to.
        expires_s: seconds until it is forgotten unless it connects again.
    """

    client: str
    server: str | None
    policy: str
    uplink: str
    expires_s: float


class Affinity(Document):
    """The clients that keep their uplink; `schema` is the version of the document."""

    schema: int
    clients: tuple[KeptClient, ...]


class Forgotten(Document):
    """How many clients were forgotten."""

    forgotten: int
