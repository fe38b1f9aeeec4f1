"""The journal of links: what `polywan events --json` is made from, and what hooks are told. Fields are only added."""

from polywan.api.document import Document


class LinkEvent(Document):
    """One change of an uplink: what it was before, what it is since, and why.

    What is null was not known; of what was before, also because there was none.

    Attributes:
        id: number of the entry; later entries have higher ones.
        time: when it happened, ISO 8601 in UTC, by the clock of that moment.
        uplink: name in the file; `interface`: its device.
        event: "state", "address" (or gateway), "renamed", "removed", "quota" (one of its limits), or "found" by a new
            daemon or in a new file.
        state, previous_state: as in `polywan status`; null for an uplink that is not in the file.
        ipv4, ipv6, previous_ipv4, previous_ipv6: whether that family works, "up" or "down".
        reason: why, with the evidence; for people.
        lasted_s: seconds that what was before had lasted: the state, or the address and gateway.
        rx_bytes, tx_bytes: bytes that the device received and sent during that time.
        address, gateway, address6, gateway6: of the link, and under `previous_` those before.
    """

    id: int
    time: str
    uplink: str
    interface: str
    event: str
    state: str | None
    previous_state: str | None
    ipv4: str | None
    ipv6: str | None
    previous_ipv4: str | None
    previous_ipv6: str | None
    reason: str
    lasted_s: float | None
    rx_bytes: int | None
    tx_bytes: int | None
    address: str | None
    gateway: str | None
    address6: str | None
    gateway6: str | None
    previous_address: str | None
    previous_gateway: str | None
    previous_address6: str | None
    previous_gateway6: str | None


class Events(Document):
    """A part of the journal.

    Attributes:
        schema: version of the document.
        events: the entries, oldest first.
        last: the number up to which all that was asked for is here: ask for what is `after` it.
        more: there is more behind that already.
        journal: whose numbers these are: send it back with `after`, as another daemon may count from elsewhere.
        problem: why the journal is not on disk, or not all of it, for people; empty when it is.
    """

    schema: int
    events: tuple[LinkEvent, ...]
    last: int
    more: bool
    journal: str = ""
    problem: str
