"""Signs of life: what proves that an uplink carries traffic although its rounds fail.

A line that is busy answers late, or not at all while its queue drops probes; a line that is dead gives no sign. Signs
are an answer that comes after its timeout, and packets that come back for connections of the uplink from beyond its
gateway. While there are any, failed rounds lead to no verdict. Connections are looked at only while there is doubt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from math import inf
from typing import Final, TypeAlias

from polywan.config import HealthSettings
from polywan.core.net import PROTOCOLS, Family, IPAddress, IPNetwork
from polywan.core.world.conntrack import Flow

LISTEN: Final = 20.0
"""Seconds after which an answer is not waited for any more: twice the longest queue that is to be expected."""

REPORTED_QUEUE: Final = 0.2
"""Seconds in a queue from which on they are worth telling."""

_OPEN: Final = frozenset({"ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT"})
"""States of TCP in which packets prove something: a reset, which a gateway can forge, ends in none of them."""


ONSET: Final = 12.0
"""Seconds after the beginning of a heavy load until which the first answer from behind it may come.

As long may one family of a line be silent while the other one fills the queue.
"""

MARGIN: Final = 2.0
"""Seconds that a probe is sent after the beginning of a load, for its answer to tell how long the queue became.

Until then the queue may still grow so fast that answers come ever further apart. At nine times the rate of the line
they come `patience` apart, and a queue of ten seconds is full in less than this.
"""

HEAVY: Final = 16_000
"""Bytes a second from which on a load can fill the queue of a slow line."""


LOOK_AGE: Final = 1.5
"""Seconds after which a look says nothing any more of what happens now; usually there are four in a second of doubt."""

LOOK_WAIT: Final = 6.0
"""Seconds that a verdict waits for a look: from the first failed round, or the last look that found something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """The last signs of life that were no good round; times are monotonic seconds.

    Attributes:
        late_at: when the last late answer came, and `late` how many seconds it took.
        back_at: when packets were last seen to come back, at the earliest, and `rate` how many bytes a second.
        found_at: when the look was made that saw them.
        loaded: when a heavy load began that was still being sent at the last look.
        line_at: when the other family of the line showed life last, as far as that is busy.
        looks: looks at connections that were asked for in the present doubt; the first alone tells nothing.
        looked: when the last look was that could be compared with one before.
    """

    late_at: float = -inf
    late: float = 0.0
    back_at: float = -inf
    found_at: float = -inf
    rate: float = 0.0
    loaded: float = -inf
    line_at: float = -inf
    looks: int = 0
    looked: float = -inf

    @property
    def at(self) -> float:
        """When the last sign came."""
        return max(self.late_at, self.back_at)


NONE: Final = Life()


def patience(settings: HealthSettings) -> float:
    """Seconds after the last sign from which on failed rounds count again.

    As long as the silence of an idle line takes to be noticed at most, and a little more, as there is more to lose.
    """
    return settings.interval * (settings.fall + 3) / 4 + settings.timeout + min(settings.interval, 1.0) / 8


def alive(life: Life, settings: HealthSettings, answered: float, now: float) -> bool:
    """Tell whether failed rounds prove nothing: the last sign is young, or none can be there yet.

    A load that has just begun and asks nobody how fast it may go (UDP) fills a long queue within a second. Whatever is
    sent from then on is answered when the queue has drained. Once one such answer has come, they come all the time.

    Both families wait in one queue. What fills it gives signs of its own family all the time; the other one, with
    little to carry, may lose that to the queue for seconds.

    Args:
        life: the last signs.
        settings: of the uplink.
        answered: when the last round was sent that was answered in time.
        now: monotonic seconds.
    """
    if now < life.at + patience(settings):
        return True
    if now < min(life.line_at + patience(settings), max(life.at, answered) + ONSET):
        return True
    return now < life.loaded + ONSET and max(answered, life.late_at - life.late) < life.loaded + MARGIN


def unseen(life: Life, bad_since: float, now: float) -> bool:
    """Tell whether a verdict has to wait for a look: a box that is short of processor time looks late.

    Packets that a look has found may have come just before it, long after the look before: then the next one tells.

    Args:
        life: the last signs.
        bad_since: when the first of the failed rounds was sent.
        now: monotonic seconds.
    """
    current = life.looked > life.found_at and now - life.looked <= LOOK_AGE
    return bool(life.looks) and not current and now - max(bad_since, life.found_at) < LOOK_WAIT


def seen(life: Life, at: float) -> Life:
    """Note a look at connections of an uplink in doubt, and that the next is asked for."""
    return replace(life, looks=life.looks + 1, looked=at if life.looks > 1 else life.looked)


def described(life: Life, settings: HealthSettings, queue: float | None, answered: str, now: float) -> str:
    """Return for people why the uplink is busy, not dead.

    Args:
        life: the last signs.
        settings: of the uplink.
        queue: seconds that the last answer waited in a queue, as far as is known.
        answered: what the rounds bring, for people.
        now: monotonic seconds.
    """
    parts = []
    if now < life.late_at + patience(settings):
        queued = queue is not None and queue >= REPORTED_QUEUE
        parts.append(f"answers come {f'{queue:.1f} s late (queue)' if queued else f'after {life.late:.1f} s'}")
    elif now < life.back_at + patience(settings):
        parts.append(answered)
    elif now < life.line_at + patience(settings):
        parts.append("the line is, as its other family shows; no answer of this one")
    else:
        parts.append("a heavy load has just begun, no answer since")
    if now < life.back_at + patience(settings):
        parts.append(f"{_rate(life.rate)} received")
    return f"busy: {'; '.join(parts)}"


def _rate(rate: float) -> str:
    """Return a rate for people; less than a kilobyte a second in bytes."""
    return f"{rate / 1000:.0f} kB/s" if rate >= 1000 else f"{rate:.0f} B/s"


@dataclass(frozen=True, slots=True)
class Watched:
    """An uplink in doubt: its mark, and the networks of its link, where the gateway's own answers come from."""

    uplink: str
    family: Family
    mark: int
    near: tuple[IPNetwork, ...] = ()

    @property
    def key(self) -> tuple[str, Family]:
        """Its name and family."""
        return self.uplink, self.family


@dataclass(frozen=True, slots=True)
class Inside:
    """This box's own addresses, and the networks of links that are no uplinks."""

    own: frozenset[IPAddress]
    networks: tuple[IPNetwork, ...]

    def has(self, address: IPAddress) -> bool:
        """Tell whether an address is on this side of the uplinks."""
        return address in self.own or any(address in network for network in self.networks)


Counters: TypeAlias = Mapping[tuple[object, ...], tuple[tuple[str, Family], int, int]]
"""By connection: its uplink and family, and how many bytes have come from beyond the gateway and gone there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What connections of an uplink have moved between two looks.

    Attributes:
        received, sent: bytes from beyond the gateway, and to there.
        total: bytes that the connections which sent have sent since they began.
    """

    received: int = 0
    sent: int = 0
    total: int = 0


def counters(flows: Iterable[Flow], watched: Collection[Watched], inside: Inside) -> Counters:
    """Return what connections of uplinks in doubt have received from beyond their gateways, and sent there.

    Left out is what proves nothing: what nobody counted, connections with the link's own network, TCP that is not
    open, and what does not tell which of its ends is outside. Of connections from outside only TCP has received
    anything: its handshake shows that the client has the address that it sends from.
    """
    by_mark = {(w.mark, w.family): w for w in watched}
    found: dict[tuple[object, ...], tuple[tuple[str, Family], int, int]] = {}
    for flow in flows:
        mine = by_mark.get((flow.mark, flow.family))
        if mine is None or (flow.protocol == PROTOCOLS["tcp"] and flow.state not in _OPEN):
            continue
        received, sent = _counted(flow, mine, inside)
        if received or sent:
            key = (flow.protocol, flow.client, flow.client_port, flow.destination, flow.port)
            found[key] = ((mine.uplink, mine.family), received, sent)
    return found


def _counted(flow: Flow, watched: Watched, inside: Inside) -> tuple[int, int]:
    client, destination = ip_address(flow.client), ip_address(flow.destination)
    if inside.has(destination):
        # Anybody in the provider's network can send a datagram in the name of a client beyond the gateway.
        proven = flow.protocol == PROTOCOLS["tcp"]
        outer, received, sent = client, flow.bytes_up if proven else 0, flow.bytes_down
    elif inside.has(client) or flow.reply_destination != flow.client:
        outer, received, sent = destination, flow.bytes_down, flow.bytes_up
    else:
        return 0, 0
    return (0, 0) if any(outer in network for network in watched.near) else (received or 0, sent or 0)


def moved(before: Counters, after: Counters) -> dict[tuple[str, Family], Moved]:
    """Return what was moved by uplink and family, of connections that are in both."""
    found: dict[tuple[str, Family], Moved] = {}
    for connection, (key, received, sent) in after.items():
        known = before.get(connection)
        if known is None or known[0] != key:
            continue
        back, forth = max(0, received - known[1]), max(0, sent - known[2])
        so_far = found.get(key, Moved())
        found[key] = Moved(
            received=so_far.received + back,
            sent=so_far.sent + forth,
            total=so_far.total + (sent if forth else 0),
        )
    return found


def loaded_since(what: Moved, since: float, until: float, asked: float) -> float:
    """Return when a heavy load began, as far as can be told: at its present rate all along; never without one.

    A load that is older than the first question (of a daemon that has just started) counts from there: how long the
    queue is shows in an answer alone.
    """
    rate = what.sent / max(until - since, 0.001)
    return max(until - what.total / rate, asked) if rate >= HEAVY else -inf
