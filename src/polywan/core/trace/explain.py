"""Tell a trace: beside the kernel's own answers, in lines for people, as a document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from polywan.api.why import Explanation, HashUsed, KernelAnswer, LiveFlow, RuleTried, UplinkOffered
from polywan.core.net import PROTOCOL_NAMES, TABLE_MAIN, Family
from polywan.core.packet import Packet
from polywan.core.trace.model import Egress, HashChoice, RuleResult, Trace, TraceInput
from polywan.core.trace.question import ICMP
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.words import printable
from polywan.core.world.paths import Path

SCHEMA: Final = 1
"""Version of the document's shape; fields are added, never changed."""

_TCP: Final = 6
_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp", 47: "gre", 50: "esp", **dict.fromkeys(ICMP.values(), "icmp")}
_REFUSALS: Final = frozenset({"unreachable", "prohibit", "blackhole", "none"})
_TURNS: Final = {
    "weighted": "next in turn",
    "random": "drawn by weight",
    "multipath": "the kernel chooses (a nexthop group)",
    "per-packet": "every packet in turn",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The kernel's own answer about one way, and whether it is what the trace says.

    Attributes:
        uplink: the way's; empty where nobody chose.
        trouble: what is different, in words; empty when nothing is.
    """

    uplink: str
    answer: RouteAnswer
    trouble: str = ""

    @property
    def agrees(self) -> bool:
        """The kernel says what the trace says."""
        return not self.trouble


def first_query(packet: Packet, inputs: TraceInput) -> RouteQuery:
    """Return the question behind `TraceInput.without_us`: what happens without polywan?

    Packets without bits of ours pass our policy rules as if they were not there. A mark of another program is asked
    about as it is, since others may compare it as a whole.
    """
    query = _query(packet, _mark_of_others(inputs, packet))
    unbound = packet.in_interface is None and not packet.bound
    return replace(query, source=None) if unbound else query


def second_query(packet: Packet, inputs: TraceInput) -> RouteQuery | None:
    """Return what is asked after that, once the socket has a source: TCP over IPv4 is routed twice when it connects."""
    twice = packet.in_interface is None and packet.family is Family.V4 and packet.protocol == _TCP
    return _query(packet, _mark_of_others(inputs, packet)) if twice and not packet.bound else None


def queries(inputs: TraceInput, trace: Trace) -> dict[str, RouteQuery]:
    """Return what to ask the kernel about a trace, by uplink; the empty name stands for packets without a mark."""
    packet, foreign = trace.packet, trace.packet.mark & inputs.layout.keep
    match trace.outcome:
        case "uplink" | "bound" if trace.algorithm == "multipath" and not trace.specific:
            return {"": _query(packet, foreign | trace.egresses[0].mark)}
        case "uplink" | "bound":
            return {w.uplink: _query(packet, foreign | w.mark) for w in trace.egresses}
        case "outside":
            own = any(a.ip.ip == packet.destination for a in inputs.observed.addresses)
            answer = RouteQuery(
                family=packet.family,
                destination=packet.source,
                source=packet.destination if own else None,
                mark=foreign | trace.egresses[0].mark,
            )
            return {trace.egresses[0].uplink: answer}
        case "main":
            return {"": second_query(packet, inputs) or first_query(packet, inputs)}
        case "here" | "refused" | "dropped":
            return {}


def _mark_of_others(inputs: TraceInput, packet: Packet) -> int:
    own = packet.in_interface is None and inputs.holder(packet.mark) is not None
    return packet.mark & inputs.layout.keep if own else packet.mark


def _query(packet: Packet, mark: int) -> RouteQuery:
    return RouteQuery(
        family=packet.family,
        destination=packet.destination,
        source=None if packet.source.is_unspecified else packet.source,
        mark=mark,
        in_interface=packet.in_interface,
        uid=packet.user,
        protocol=packet.protocol,
        source_port=packet.source_port,
        port=packet.port,
        dscp=packet.dscp,
    )


def compare(inputs: TraceInput, trace: Trace, answers: Mapping[str, RouteAnswer]) -> tuple[Proof, ...]:
    """Hold the kernel's answers to `queries` against the trace."""
    egresses = {egress.uplink: egress for egress in trace.egresses}
    return tuple(
        Proof(uplink=name, answer=answer, trouble=_trouble(inputs, trace, egresses.get(name), answer))
        for name, answer in answers.items()
    )


def _trouble(inputs: TraceInput, trace: Trace, egress: Egress | None, answer: RouteAnswer) -> str:
    if egress is None:
        return _unlike(answer, [trace.link] if trace.outcome == "main" else [w.device for w in trace.egresses])
    if not isinstance(inputs.reach.get((egress.uplink, trace.packet.family)), Path) and answer.kind in _REFUSALS:
        return ""
    if trouble := _unlike(answer, [egress.device]):
        # What a box that does not forward says of every packet of others.
        off = trace.packet.in_interface is not None and answer.kind == "unreachable"
        return f"{trouble}; is forwarding on (`forwarding = true` in [global])?" if off else trouble
    specific = answer.table == TABLE_MAIN and (trace.specific or trace.outcome in ("bound", "outside"))
    if not specific and egress.table is not None and answer.table not in (0, egress.table):
        wrong = f"the right device, but by table {answer.table}, not {egress.table}"
        return f"{wrong}: a policy rule is missing, or another program's precedes it"
    return ""


def _unlike(answer: RouteAnswer, devices: Sequence[str | None]) -> str:
    wanted = " or ".join(device or "nowhere" for device in devices)
    if answer.kind != "unicast":
        return f"it would not forward it ({answer.kind}); expected: {wanted}"
    if answer.link not in devices:
        return f"it would send it by {answer.link} (table {answer.table}); expected: {wanted}"
    return ""


def describe(trace: Trace, proofs: tuple[Proof, ...] = (), rules_at: Sequence[str] = ()) -> list[str]:
    """Return the story for people, one fact in a line, the conclusion last; `rules_at` as for `document`."""
    doubt = "" if all(proof.agrees for proof in proofs) else "; the kernel would do something else, see above"
    return [_asked(trace.packet), *(f"  {line}" for line in _story(trace, proofs, rules_at)), conclusion(trace) + doubt]


def conclusion(trace: Trace) -> str:
    """Return in one sentence where the connection goes."""
    names = " or ".join(f"{w.uplink}{_percent(w)}" for w in trace.egresses)
    match trace.outcome:
        case "uplink" | "bound":
            return f"leaves by {names}"
        case "outside":
            return f"answers leave by {names}"
        case "main":
            return f"leaves by {trace.link}, as without polywan" if trace.link else "goes as without polywan"
        case "here":
            return "stays in this box"
        case "refused":
            return "is refused"
        case "dropped":
            return "is dropped"


def _percent(egress: Egress) -> str:
    return "" if egress.share == 1 else f" ({100 * egress.share:.3g} %)"


def _asked(packet: Packet) -> str:
    port = "" if packet.port is None else f" port {packet.port}"
    protocol = PROTOCOL_NAMES.get(packet.protocol, f"protocol {packet.protocol}")
    origin = "from this box" if packet.in_interface is None else f"arriving by {packet.in_interface}"
    source = "no address" if packet.source.is_unspecified else packet.source
    return f"{source} to {packet.destination}{port}, {protocol}, {origin}"


def _story(trace: Trace, proofs: tuple[Proof, ...], rules_at: Sequence[str]) -> Iterator[str]:
    for tried in trace.tried:
        at = _place(tried.number, rules_at)
        yield f"rule {tried.number}{f' ({at})' if at else ''}: {_verdict(tried)}"
    if trace.policy is None:
        yield trace.reason
    else:
        if trace.rule is None:
            yield "no rule matches" if trace.tried else "there are no rules"
        yield f"{trace.served_by} ({trace.algorithm}): {trace.reason}"
        yield from _choice(trace)
    for egress in trace.egresses:
        yield _egress_line(egress, seen=trace.outcome != "outside")
    yield from _proofs(proofs)
    yield from (f"note: {note}" for note in trace.notes)


def _verdict(tried: RuleResult) -> str:
    if tried.matched:
        return "matches"
    return f"no, {tried.failed} is {'excluded' if tried.excluded else 'needed'} (here: {tried.seen})"


def _choice(trace: Trace) -> Iterator[str]:
    if trace.specific:
        yield f"main has a specific route by {trace.egresses[0].device}, which overrides the policy's choice"
        return
    if trace.native:
        yield f"its IPv6 source may leave by {' or '.join(w.uplink for w in trace.egresses)} only"
    if trace.affinity:
        yield f"affinity keeps this client on {trace.egresses[0].uplink}"
        return
    if trace.pick is not None:
        pick = trace.pick
        key = ", ".join(pick.key)
        yield f"hash of {key}: {pick.hash:#010x}, slot {pick.slot} of {pick.slots}: {trace.egresses[0].uplink}"
    elif trace.algorithm == "source-parity" and not trace.native:
        yield f"{'an odd' if int(trace.packet.source) & 1 else 'an even'} source"
    elif len(trace.egresses) > 1:
        shares = ", ".join(f"{w.uplink} {100 * w.share:.3g} %" for w in trace.egresses)
        yield f"{_TURNS.get(str(trace.algorithm), 'one of them')}; shares: {shares}"


def _egress_line(egress: Egress, *, seen: bool) -> str:
    via = f" via {egress.via}" if egress.via else ""
    table = f", table {egress.table}" if egress.table is not None else ""
    source = f"; the server sees {egress.source or 'an address of the link'} ({egress.nat})" if seen else ""
    return f"{egress.uplink}: mark {egress.mark:#x}{table}, {egress.device}{via}{source}"


def _proofs(proofs: tuple[Proof, ...]) -> Iterator[str]:
    for proof in proofs:
        if not proof.agrees:
            yield "THE KERNEL DISAGREES" + (f" about {proof.uplink}" if proof.uplink else "") + f": {proof.trouble}"
    agreeing = [proof for proof in proofs if proof.agrees]
    if len(agreeing) > 1:
        yield f"the kernel agrees about {', '.join(proof.uplink for proof in agreeing)}"
    for proof in agreeing[:1] if len(agreeing) == 1 else ():
        answer = proof.answer
        via = f" via {answer.via}" if answer.via else ""
        table = f", table {answer.table}" if answer.table else ""
        yield f"the kernel agrees: {answer.link or answer.kind}{via}{table}"


def _flow_lines(flows: Sequence[LiveFlow] | None) -> Iterator[str]:
    if flows is None:
        return
    if not flows:
        yield "no such connection is tracked"
    for flow in flows:
        if flow.uplink:
            place = f"is on {flow.uplink}"
        elif flow.policy:
            place = f"is spread packet by packet by policy {flow.policy}"
        else:
            place = "has no uplink"
        port = "" if flow.client_port is None else f" port {flow.client_port}"
        state = f", {flow.state}" if flow.state else ""
        yield f"live: {flow.client}{port}{state} {place} (mark {flow.mark:#x}); the server sees {flow.server_sees}"
    yield "a new connection:"


def document(
    trace: Trace,
    proofs: tuple[Proof, ...] | None = None,
    rules_at: Sequence[str] = (),
    flows: tuple[LiveFlow, ...] | None = None,
) -> Explanation:
    """Return the trace for people and programs.

    Its lines are safe for a terminal: a device's name may hold nearly any bytes.

    Args:
        trace: what would happen.
        proofs: the kernel's word; None when it was not asked.
        rules_at: file and line of each rule, as far as known.
        flows: live connections of this kind; None when they were not asked for.
    """
    packet = trace.packet
    lines = [*_flow_lines(flows), *describe(trace, proofs or (), rules_at)]
    return Explanation(
        schema=SCHEMA,
        source=str(packet.source),
        destination=str(packet.destination),
        protocol=packet.protocol,
        source_port=packet.source_port,
        port=packet.port,
        in_interface=packet.in_interface,
        outcome=trace.outcome,
        reason=trace.reason,
        rules=tuple(_rule(tried, rules_at) for tried in trace.tried),
        rule=trace.rule,
        policy=trace.policy,
        algorithm=trace.algorithm,
        tier=trace.tier,
        affinity=trace.affinity,
        native=trace.native,
        specific_route=trace.specific,
        hash=_hash(trace.pick),
        uplinks=tuple(map(_uplink, trace.egresses)),
        interface=trace.link,
        kernel=tuple(map(_answer, proofs or ())),
        agrees=all(proof.agrees for proof in proofs) if proofs else None,
        notes=trace.notes,
        text=tuple(map(printable, lines)),
        flows=flows,
    )


def _place(number: int, rules_at: Sequence[str]) -> str | None:
    """Return file and line of a rule."""
    return rules_at[number - 1] if 0 < number <= len(rules_at) else None


def _rule(tried: RuleResult, rules_at: Sequence[str]) -> RuleTried:
    return RuleTried(
        number=tried.number,
        failed=tried.failed,
        excluded=tried.excluded,
        seen=tried.seen,
        matched=tried.matched,
        at=_place(tried.number, rules_at),
    )


def _hash(pick: HashChoice | None) -> HashUsed | None:
    return None if pick is None else HashUsed(key=pick.key, value=pick.hash, slot=pick.slot, slots=pick.slots)


def _uplink(egress: Egress) -> UplinkOffered:
    return UplinkOffered(
        name=egress.uplink,
        share=round(egress.share, 6),
        interface=egress.device,
        mark=egress.mark,
        table=egress.table,
        gateway=None if egress.via is None else str(egress.via),
        server_sees=None if egress.source is None else str(egress.source),
        nat=egress.nat,
    )


def _answer(proof: Proof) -> KernelAnswer:
    answer = proof.answer
    return KernelAnswer(
        uplink=proof.uplink or None,
        kind=answer.kind,
        interface=answer.link,
        gateway=None if answer.via is None else str(answer.via),
        table=answer.table,
        agrees=proof.agrees,
        trouble=proof.trouble,
    )
