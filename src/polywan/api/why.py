"""Which way a connection would take, and why: what `polywan why --json` prints. Fields are added, never changed."""

from polywan.api.document import Document


class RuleTried(Document):
    """A rule that was tried.

    Attributes:
        number: its place in the file, from 1.
        failed: the condition that kept it from matching, in the file's words; empty when it matched.
        excluded: that condition is one of `not`, and holds.
        seen: what the packet has there.
        at: file and line, where they are known.
    """

    number: int
    failed: str
    excluded: bool
    seen: str
    matched: bool
    at: str | None = None


class HashUsed(Document):
    """How a hash chose: of what, its value, and the slot of `slots` that follows from it."""

    key: tuple[str, ...]
    value: int
    slot: int
    slots: int


class UplinkOffered(Document):
    """An uplink that the connection may take.

    Attributes:
        share: chance that it is this one, 0..1.
        mark: on its packets; 0 when there is none.
        table: None when the mark leads elsewhere.
        gateway: None on point-to-point links and when it is not known.
        server_sees: address that the server will see; None when it is not known.
        nat: how that address comes about, for people.
    """

    name: str
    share: float
    interface: str
    mark: int
    table: int | None
    gateway: str | None
    server_sees: str | None
    nat: str


class KernelAnswer(Document):
    """The kernel's own answer about one way.

    Attributes:
        uplink: the way's; None where nobody chose.
        kind: "unicast", "blackhole" …, as in ip-route(8).
        trouble: what is other than polywan says, for people; empty when nothing is.
    """

    uplink: str | None
    kind: str
    interface: str | None
    gateway: str | None
    table: int
    agrees: bool
    trouble: str


class LiveFlow(Document):
    """A connection of this kind that is tracked now: `uplink` or `policy` by its mark, if these are ours."""

    client: str
    client_port: int | None
    destination: str
    port: int | None
    state: str
    mark: int
    uplink: str | None
    policy: str | None
    server_sees: str | None


class Explanation(Document):
    """Which way a connection would take, and why; what does not apply is null or empty.

    Attributes:
        schema: version of the document.
        protocol: number (IANA).
        outcome: "uplink", "bound", "outside", "main", "here", "refused" or "dropped".
        rules: those that were tried, up to the one that matched, whose number is `rule`.
        tier: of the policy, from 0.
        affinity: the client is kept on an uplink.
        native: its IPv6 source has decided.
        specific_route: a specific route of main has decided.
        uplinks: those that it may take.
        interface: device by which it leaves when nobody chose.
        agrees: the kernel says the same of all ways; None when it was not asked.
        notes: what this leaves out, for people.
        text: all of it for people, the conclusion last.
        flows: live connections of this kind, when they were asked for.
    """

    schema: int
    source: str
    destination: str
    protocol: int
    source_port: int | None
    port: int | None
    in_interface: str | None
    outcome: str
    reason: str
    rules: tuple[RuleTried, ...]
    rule: int | None
    policy: str | None
    algorithm: str | None
    tier: int | None
    affinity: bool
    native: bool
    specific_route: bool
    hash: HashUsed | None
    uplinks: tuple[UplinkOffered, ...]
    interface: str | None
    kernel: tuple[KernelAnswer, ...]
    agrees: bool | None
    notes: tuple[str, ...]
    text: tuple[str, ...]
    flows: tuple[LiveFlow, ...] | None = None
