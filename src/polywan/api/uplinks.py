"""What is said of one uplink: after an order, after a test, before a program is run by it. Fields are only added."""

from typing import Literal

from polywan.api.document import Document


class UplinkChanged(Document):
    """An uplink after `disable`, `drain` or `enable`.

    Attributes:
        state, reason: as in its status.
        warnings: what people should know.
        saved: a restart of the daemon will know the order.
    """

    uplink: str
    state: str
    reason: str
    warnings: tuple[str, ...]
    saved: bool


class LayerReport(Document):
    """What a test saw of one layer: "ok", "broken" or "unknown", and in which way."""

    layer: str
    verdict: str
    detail: str


class UplinkReport(Document):
    """An uplink after a test.

    Attributes:
        state, reason: as in its status.
        verdict: what the test amounts to.
        complete: every result was there in time.
        layers: the lowest first.
    """

    uplink: str
    state: str
    reason: str
    verdict: Literal["ok", "degraded", "down"]
    complete: bool
    layers: tuple[LayerReport, ...]


class ViaGroup(Document):
    """The control group of the programs that leave by an uplink.

    Attributes:
        directory: where it is, or should be made.
        state, reason: the uplink's, as in its status.
        families: "ipv4" and "ipv6", those that the programs may use.
        group: its inode; None when there is none.
        in_force: the kernel leads the group's programs.
    """

    directory: str
    uplink: str
    state: str
    reason: str
    families: tuple[str, ...]
    group: int | None
    in_force: bool
