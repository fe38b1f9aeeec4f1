"""Policy rules as the kernel wants them, and what it says of them (rtnetlink(7), linux/fib_rules.h)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from polywan.core.net import PROTOCOL, Family, RulePriority, TableId
from polywan.core.routing.routes import IpRule
from polywan.kernel.netlink.rtnetlink import DELRULE, NEWRULE, RTMSG, decode_network, table_byte
from polywan.kernel.netlink.socket import AF, CREATE, EXCL, FAMILY_OF, Request, attribute, attributes, number, text, u32

_FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 2, 3, 4, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME, _FRA_PROTOCOL = 14, 15, 16, 17, 21
_FRA_DST: Final = 1
_FRA_IP_PROTO: Final = 22
_ACT_TABLE, _ACT_GOTO = 1, 2
_INVERT: Final = 2
_NOT_SET: Final = 0xFFFF_FFFF
_BUILT_IN: Final = frozenset({(0, 255), (32766, 254), (32767, 253)})


def get_rules(family: Family) -> bytes:
    """Body of a request for every policy rule of a family."""
    return RTMSG.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0)


def add_rule(rule: IpRule) -> Request:
    """Request that adds the policy rule; refused with EEXIST when it is there already."""
    return Request(NEWRULE, CREATE | EXCL, _rule(rule))


def del_rule(rule: IpRule) -> Request:
    """Request that removes the policy rule."""
    return Request(DELRULE, 0, _rule(rule))


def _rule(rule: IpRule) -> bytes:
    length = rule.from_.prefixlen if rule.from_ is not None else 0
    action = _ACT_GOTO if rule.goto is not None else _ACT_TABLE
    flags = _INVERT if rule.invert else 0
    to = rule.to.prefixlen if rule.to is not None else 0
    body = RTMSG.pack(AF[rule.family], to, length, 0, table_byte(rule.table or 0), 0, 0, action, flags)
    body += number(_FRA_PRIORITY, rule.priority) + attribute(_FRA_PROTOCOL, bytes((PROTOCOL,)))
    if rule.table is not None:
        body += number(_FRA_TABLE, rule.table)
    if rule.goto is not None:
        body += number(_FRA_GOTO, rule.goto)
    if rule.mark is not None:
        body += number(_FRA_FWMARK, rule.mark[0]) + number(_FRA_FWMASK, rule.mark[1])
    if rule.from_ is not None:
        body += attribute(_FRA_SRC, rule.from_.network_address.packed)
    if rule.to is not None:
        body += attribute(_FRA_DST, rule.to.network_address.packed)
    if rule.iif is not None:
        body += attribute(_FRA_IIFNAME, rule.iif.encode() + b"\0")
    if rule.oif is not None:
        body += attribute(_FRA_OIFNAME, rule.oif.encode() + b"\0")
    if rule.ipproto is not None:
        body += attribute(_FRA_IP_PROTO, bytes((rule.ipproto,)))
    if rule.suppress_prefixlength is not None:
        body += number(_FRA_SUPPRESS_PREFIXLEN, rule.suppress_prefixlength)
    return body


class DecodedRule(NamedTuple):
    """A policy rule and whether it carries our protocol number."""

    rule: IpRule
    ours: bool


def decode_rule(body: bytes) -> DecodedRule | None:
    """Decode RTM_NEWRULE or RTM_DELRULE; None for the kernel's own three and for other families.

    Rules of others may use selectors that `IpRule` has no field for; what it has is filled in.
    """
    if len(body) < RTMSG.size:
        return None
    af, to, length, tos, table, _, _, action, flags = RTMSG.unpack_from(body)
    if af not in FAMILY_OF:
        return None
    found = attributes(body, RTMSG.size)
    table = u32(found[_FRA_TABLE]) if _FRA_TABLE in found else table
    suppress = u32(found.get(_FRA_SUPPRESS_PREFIXLEN, b"\xff\xff\xff\xff"))
    rule = IpRule(
        family=FAMILY_OF[af],
        priority=RulePriority(u32(found.get(_FRA_PRIORITY, b""))),
        table=TableId(table) if action == _ACT_TABLE and table else None,
        goto=RulePriority(u32(found.get(_FRA_GOTO, b""))) if action == _ACT_GOTO else None,
        mark=_mark(found),
        from_=decode_network(found.get(_FRA_SRC, b""), length) if length else None,
        to=decode_network(found.get(_FRA_DST, b""), to) if to else None,
        oif=text(found[_FRA_OIFNAME]) if _FRA_OIFNAME in found else None,
        iif=text(found[_FRA_IIFNAME]) if _FRA_IIFNAME in found else None,
        ipproto=found[_FRA_IP_PROTO][0] if len(found.get(_FRA_IP_PROTO, b"")) == 1 else None,
        invert=bool(flags & _INVERT),
        suppress_prefixlength=None if suppress == _NOT_SET else suppress,
    )
    ours = found.get(_FRA_PROTOCOL, b"") == bytes((PROTOCOL,))
    if not ours and not to and not tos and _built_in(rule):
        return None
    return DecodedRule(rule, ours)


def _built_in(rule: IpRule) -> bool:
    plain = IpRule(family=rule.family, priority=rule.priority, table=rule.table)
    return rule == plain and (rule.priority, rule.table) in _BUILT_IN


def _mark(found: Mapping[int, bytes]) -> tuple[int, int] | None:
    if _FRA_FWMARK not in found and _FRA_FWMASK not in found:
        return None
    return u32(found.get(_FRA_FWMARK, b"")), u32(found.get(_FRA_FWMASK, b"\xff\xff\xff\xff"))
