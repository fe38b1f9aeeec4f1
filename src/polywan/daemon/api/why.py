"""Answer `polywan why`: gather what a trace depends on, ask the kernel beside it, and put both together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from typing import Final, TypeAlias

from polywan.api.why import Explanation, LiveFlow
from polywan.core.net import Family, IPAddress
from polywan.core.packet import Packet
from polywan.core.state.state import State
from polywan.core.trace import explain
from polywan.core.trace.model import Trace, TraceInput
from polywan.core.trace.question import Question, QuestionError, parse
from polywan.core.trace.route_query import RouteAnswer, RouteQuery
from polywan.core.trace.walk import expected, trace
from polywan.core.words import printable
from polywan.core.world.affinity import AffinityEntry
from polywan.core.world.conntrack import Flow
from polywan.core.world.foreign_chains import may_drop
from polywan.kernel.api import Machine

Ask: TypeAlias = Callable[[RouteQuery], RouteAnswer]
"""The kernel's routing, as `Kernel.ask` offers it."""

MOST_FLOWS: Final = 20
"""Connections that are told of when the question leaves a port open."""

_ANY: Final[Mapping[Family, IPAddress]] = {Family.V4: IPv4Address(0), Family.V6: IPv6Address(0)}
_RECORDED: Final = "based on a recording, which lacks static routes and affinity"


def trace_input_of(state: State) -> TraceInput:
    """Return what a trace depends on, from the engine's state.

    Raises:
        QuestionError: nothing was decided yet.
    """
    if state.known.config is None or state.known.observed is None or state.decision.selection is None:
        raise QuestionError("no decision yet: try again in a moment")
    return TraceInput(
        config=state.known.config,
        lookups=state.known.lookups,
        selection=state.decision.selection,
        reach=state.decision.reach,
        observed=state.known.observed,
    )


def live(state: State, kernel: Machine, words: Mapping[str, str], now: int) -> Explanation:
    """Return the document about a connection on this machine; `flow` among the words asks for live ones, too.

    Raises:
        QuestionError: the question makes no sense, or does not fit this machine.
        KernelError: the kernel refused to answer.
    """
    question = parse({key: word for key, word in words.items() if key != "flow"})
    inputs = trace_input_of(state)
    packet, notes = _completed(inputs, question, now, kernel.ask)
    with_affinity = any(policy.affinity for policy in inputs.config.named.values())
    kept = kernel.affinities() if with_affinity else ()
    first = kernel.ask(explain.first_query(packet, inputs))
    if first.kind == "unicast" and (again := explain.second_query(packet, inputs)) is not None:
        first = kernel.ask(again)
    inputs = replace(inputs, without_us=first, affinity=_affinity(inputs, packet, kept))
    traced = trace(inputs, packet)
    traced = replace(traced, notes=(*traced.notes, *notes, *_firewalls(state, traced)))
    answers = {name: kernel.ask(query) for name, query in explain.queries(inputs, traced).items()}
    proofs = explain.compare(inputs, traced, answers)
    flows = None
    if "flow" in words:
        known = (flow for flow in kernel.flows(inputs.layout.mask) if _meant(inputs, question, flow))
        flows = tuple(_flow(inputs, flow) for flow in islice(known, MOST_FLOWS))
    return explain.document(traced, proofs, state.known.rules_at, flows)


def recorded(state: State, words: Mapping[str, str], now: int) -> Explanation:
    """Return the document about a connection on a machine that is known from a recording.

    Raises:
        QuestionError: as `live`; or live connections are asked for.
    """
    if "flow" in words:
        raise QuestionError("a recording has no live connections")
    inputs = trace_input_of(state)
    packet, notes = _completed(inputs, parse(words), now, None)
    traced = trace(inputs, packet)
    traced = replace(traced, notes=(*traced.notes, *notes, *_firewalls(state, traced), _RECORDED))
    return explain.document(traced, rules_at=state.known.rules_at)


def _firewalls(state: State, traced: Trace) -> Iterator[str]:
    """Name what routing cannot tell: chains of others that drop what they do not accept."""
    leaves = traced.outcome in ("uplink", "bound", "main", "outside")
    if state.known.actual is None or traced.packet.in_interface is None or not leaves:
        return
    for chain in may_drop(state.known.actual.chains, traced.packet.family):
        yield f"{chain} has policy drop; whether one of its rules accepts this was not checked"


def _completed(inputs: TraceInput, question: Question, now: int, ask: Ask | None) -> tuple[Packet, tuple[str, ...]]:
    """Complete the question: which source the box would take, or by which device a source arrives."""
    links, own = inputs.observed.links, {a.ip.ip for a in inputs.observed.addresses}
    if question.in_interface is not None and question.in_interface not in links:
        known = printable(", ".join(sorted(links)))
        raise QuestionError(f"there is no device {question.in_interface}; devices: {known}")
    if question.source is None:
        return question.packet(_own_source(inputs, question, now, ask), None, now), ()
    if question.in_interface is not None:
        return question.packet(question.source, question.in_interface, now), ()
    if question.source in own:
        packet = question.packet(question.source, None, now, bound=True)
        return packet, ("the source is an address of this box: assuming a socket bound to it",)
    link = _towards(inputs, question, ask)
    if link is None:
        raise QuestionError(f"no route leads to {question.source}: give the device with --in-interface")
    return question.packet(question.source, link, now), (
        f"assuming that it arrives on {link}, which leads to {question.source}",
    )


def _own_source(inputs: TraceInput, question: Question, now: int, ask: Ask | None) -> IPAddress:
    """Return the address that the box takes before polywan looks at the packet."""
    nobody = _ANY[question.family]
    packet = question.packet(nobody, None, now)
    found = ask(explain.first_query(packet, inputs)) if ask else expected(inputs, packet)
    if found.source is not None:
        return found.source
    at_link = inputs.observed.addresses_of(found.link, question.family) if found.link else ()
    return at_link[0].ip if at_link else nobody


def _towards(inputs: TraceInput, question: Question, ask: Ask | None) -> str | None:
    """Return the device by which the box would reach the source without polywan."""
    if question.source is None:
        return None
    back = Packet(family=question.family, source=_ANY[question.family], destination=question.source, protocol=0)
    if ask is None:
        return expected(inputs, back).link
    return ask(RouteQuery(family=question.family, destination=question.source)).link


def _affinity(inputs: TraceInput, packet: Packet, kept: Iterable[AffinityEntry]) -> dict[str, str]:
    """Uplinks that are kept for the packet's client, by policy."""
    by_mark = {int(number.mark): name for name, number in inputs.numbers.items()}
    return {
        k.policy: by_mark[k.mark]
        for k in kept
        if k.family is packet.family
        and k.client == packet.source
        and k.server in (None, packet.destination)
        and k.mark in by_mark
    }


def _meant(inputs: TraceInput, question: Question, flow: Flow) -> bool:
    """True for a connection that the question is about."""
    if flow.family is not question.family or flow.protocol != question.protocol:
        return False
    if ip_address(flow.destination) != question.destination:
        return False
    client = ip_address(flow.client)
    own = any(a.ip.ip == client for a in inputs.observed.addresses)
    return (
        (client == question.source if question.source is not None else own)
        and question.port in (None, flow.port)
        and question.source_port in (None, flow.client_port)
    )


def _flow(inputs: TraceInput, flow: Flow) -> LiveFlow:
    return LiveFlow(
        client=flow.client,
        client_port=flow.client_port,
        destination=flow.destination,
        port=flow.port,
        state=flow.state,
        mark=flow.mark,
        uplink=next((name for name, number in inputs.numbers.items() if number.mark == flow.mark), None),
        policy=next((name for name, number in inputs.policy_marks.items() if number.mark == flow.mark), None),
        server_sees=flow.reply_destination,
    )
