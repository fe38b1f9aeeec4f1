"""The box asks a resolver of one provider by the line of another, and that resolver does not answer there.

Many resolvers answer everybody, whoever has named them. So each is asked by the lines: one that its own line gets an
answer from, and the line that is used gets none from, is in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polywan.api.doctor import Finding, Fix, Step
from polywan.config import SteeringRule
from polywan.core.words import listed
from polywan.doctor.box import Box
from polywan.doctor.facts.line import Resolver, ResolverAnswer

_DNS: Final = 53


def check(box: Box) -> Iterator[Finding]:
    """Find resolvers that are asked by a line from which they do not answer."""
    for resolver in dict.fromkeys(answer.resolver for answer in box.line.lookups):
        answers = [answer for answer in box.line.lookups if answer.resolver == resolver]
        own = next((a for a in answers if a.egress.device == resolver.device and a.ok), None)
        wrong = [a for a in answers if a.egress.device != resolver.device and not a.ok and _is_used(box, a)]
        if own is not None and wrong and not _ruled(box, resolver):
            yield _finding(box, resolver, own, wrong)


def _is_used(box: Box, answer: ResolverAnswer) -> bool:
    """Tell whether the box's own questions to the resolver leave by this line."""
    if box.status is None:
        return answer.egress.mark == 0 and answer.leaves == answer.egress.device
    uplink = next((each for each in box.status.uplinks if each.name == answer.egress.name), None)
    if uplink is None or not answer.egress.ours or answer.leaves != answer.egress.device:
        return False
    return uplink.state in ("up", "degraded") and uplink.shares.get(answer.egress.family.nfproto, 0.0) > 0


def _ruled(box: Box, resolver: Resolver) -> bool:
    """Tell whether a rule of the file may be meant for these questions: then somebody has decided about them."""
    return any(_may_match(rule, resolver) for rule in (box.config.rules if box.config is not None else ()))


def _may_match(rule: SteeringRule, resolver: Resolver) -> bool:
    if rule.from_ or rule.in_interface or rule.mac or rule.protocol not in (None, "udp", "tcp"):
        return False
    if rule.port and not any(first <= _DNS <= last for first, last in rule.port):
        return False
    return not rule.to or any(resolver.address in network for network in rule.to)


def _finding(box: Box, resolver: Resolver, own: ResolverAnswer, wrong: list[ResolverAnswer]) -> Finding:
    address, others = resolver.address, listed([answer.egress.device for answer in wrong])
    evidence = [f"{resolver.source} says that {address} is a resolver of the provider at {resolver.device}"]
    evidence += [f"by {own.egress.device}: {own.detail}"]
    evidence += [f"by {answer.egress.device}: {answer.detail}" for answer in wrong]
    share = "" if box.status is None else ", whenever such a connection is given that uplink"
    return Finding(
        check="dns-of-other-provider",
        severity="fault",
        what=f"resolver {address} of the provider at {resolver.device} gets questions by {others} and answers none",
        evidence=tuple(evidence),
        consequence=f"this box waits 5 s or more for a name, or finds none{share}",
        fix=_fix(box, resolver, own),
    )


def _fix(box: Box, resolver: Resolver, own: ResolverAnswer) -> Fix:
    address, egress = resolver.address, own.egress
    if box.status is not None and box.config is not None:
        text = f'[[rules]]\nto = ["{address}"]\nuplink = "{egress.name}"\n'
        how = f"send connections to {address} by {egress.name}, by a rule in {box.config_path}"
        if box.config.rules:
            return Fix(
                how=f'{how} before those that would match first: `to = ["{address}"]`, `uplink = "{egress.name}"`'
            )
        return Fix(
            how=how, steps=(Step(path=box.config_path, text=text, append=True), Step(command=("polywan", "reload")))
        )
    option = () if address.version == 4 else ("-6",)
    via = () if egress.via is None else ("via", str(egress.via))
    command = ("ip", *option, "route", "add", str(address), *via, "dev", egress.device)
    return Fix(
        how=f"give {address} a route by {egress.device}, and have whatever sets up the link do so; "
        "or name public resolvers in /etc/resolv.conf",
        steps=(Step(command=command),),
    )
